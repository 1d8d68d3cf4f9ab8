"""The embedded Kafka: real brokers in KRaft mode, each its own JVM on the loopback interface."""

import asyncio
import functools
import shutil
import signal
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from importlib.resources import files
from pathlib import Path

from sitelog.deploy._class_archive import ClassArchive
from sitelog.deploy._daemon import Daemon, started_daemons, stop_together
from sitelog.deploy._jars import fetch_jars
from sitelog.deploy._java import find_java
from sitelog.deploy._ports import LOOPBACK, require_free
from sitelog.deploy._ready import DISK_FULL, Advice, until_ready
from sitelog.deploy._server_properties import server_properties
from sitelog.deploy._state import BrokerState, StackState
from sitelog.deploy._threads import to_the_end
from sitelog.streams.errors import UnavailableError

_NAME = "kafka-"
# A broker answers after 3 s here; with a log to recover on a busy machine 20 s were seen.
START_SECONDS_MAX = 90
# A clean stop writes snapshots and hands leadership over; 1 to 3 s are usual.
_STOP_STEPS = ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0))
_HEAP_MEGABYTES_MAX = 384
_PROBE_SECONDS = 2.0
_ADVICE = (
    DISK_FULL,
    Advice("Address already in use", "Another process took the port meanwhile: run `sitelog up` again"),
    Advice("Failed to acquire lock", "Another broker uses this data folder: end it first"),
    Advice("InconsistentClusterId", "The data folder is another cluster's: `sitelog up --reset` clears it"),
    Advice("Cannot allocate memory", "The machine is out of memory: a broker needs about 400 MB"),
    Advice("Could not reserve enough space", "The machine is out of memory: a broker needs about 400 MB"),
)


def broker_daemon(folder: Path, broker: BrokerState) -> Daemon:
    """Return the handle of one broker of the stack in `folder`."""
    return Daemon(folder, f"{_NAME}{broker.node_id}")


async def start_brokers(
    folder: Path, state: StackState, environ: Mapping[str, str], say: Callable[[str], None]
) -> list[str]:
    """Start every broker that isn't running and return their names, once each of them answers.

    Storage is formatted the first time. Raises UnavailableError with what to do. Those that run are left alone.
    """
    missing = [broker for broker in state.brokers if broker_daemon(folder, broker).running() is None]
    if missing:
        for broker in missing:
            require_free(broker.port, f"Kafka broker {broker.node_id}", "--kafka-port (with --reset)")
            require_free(broker.controller_port, f"Kafka controller {broker.node_id}", "--reset")
        java = find_java(environ)
        jars = await asyncio.to_thread(fetch_jars, environ, say)
        # In the locale C a JVM finds no file whose path isn't ASCII.
        launcher = _Launcher(folder, state, {**environ, "LC_ALL": "C.UTF-8"}, java=java, jars=jars)
        first, *others = missing
        await launcher.ensure_format(first)  # alone: the first time it makes the archive, for the others too
        await asyncio.gather(*(launcher.ensure_format(broker) for broker in others))
        for broker in missing:
            launcher.launch(broker)
    # Waits for those that ran already, too: a broker without its majority doesn't answer yet.
    await asyncio.gather(*(_until_answering(folder, broker) for broker in state.brokers))
    return [broker_daemon(folder, broker).name for broker in missing]


def stop_brokers(folder: Path) -> None:
    """End all brokers, politely, then after 20 s with SIGKILL; harmless if none runs.

    All at once: the last of three, left alone without a majority, waits in vain for a leave to go (5 s when the
    others end with it, for ever when they ended before).
    """
    started = started_daemons(folder)
    stop_together([daemon for daemon in started if daemon.name.startswith(_NAME)], _STOP_STEPS)


async def answers(port: int) -> bool:
    """Return whether a broker on the loopback `port` answers an ApiVersions request, within 2 s."""
    return await asyncio.to_thread(_ask_api_versions, port)


def _ask_api_versions(port: int) -> bool:
    # Request header version 1: api key 18, api version 0, correlation id, client id; ApiVersions 0 has no body.
    client = b"sitelog-up"
    request = struct.pack(">hhih", 18, 0, 1, len(client)) + client
    try:
        with socket.create_connection((LOOPBACK, port), timeout=_PROBE_SECONDS) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = connection.recv(10)
    except OSError:
        return False
    return len(answer) == 10 and struct.unpack(">iih", answer)[1:] == (1, 0)  # noqa: PLR2004 - size, id, error code


async def _until_answering(folder: Path, broker: BrokerState) -> None:
    probe = functools.partial(answers, broker.port)
    daemon = broker_daemon(folder, broker)
    await until_ready(daemon, probe, seconds_max=START_SECONDS_MAX, advice=_ADVICE)


@dataclass(frozen=True)
class _Launcher:
    """What formatting and launching have to know besides the broker."""

    folder: Path
    state: StackState
    environ: Mapping[str, str]
    _: KW_ONLY
    java: str
    jars: Path

    @property
    def archive(self) -> ClassArchive:
        """The classes that an earlier start has loaded."""
        return ClassArchive.of(self.java, self.jars)

    async def ensure_format(self, broker: BrokerState) -> None:
        """Format the storage if it is new, beside and renamed: a format that was interrupted counts as none."""
        data = self._data(broker)
        if data.exists():
            self._check_cluster(data)
            return
        scratch = data.with_name(f"{data.name}.new")
        await to_the_end(shutil.rmtree, scratch, ignore_errors=True)
        properties = self._write_properties(broker, scratch)
        with self.archive.making() as archive:
            # The quick compiler only: this process lives a second.
            options = ("-Xmx128m", "-XX:TieredStopAtLevel=1", *archive)
            process = await asyncio.create_subprocess_exec(
                *self._java(*options, "kafka.tools.StorageTool", "format"),
                *("--cluster-id", self.state.cluster_id, "--config", str(properties)),
                env=dict(self.environ),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await process.communicate()
        if process.returncode != 0:
            said = output.decode("utf-8", "replace").strip()[-600:]
            full = f". {DISK_FULL.what_to_do}" if DISK_FULL.symptom in said else ""
            raise UnavailableError(f"Kafka couldn't format {data}: {said}{full}")
        scratch.rename(data)

    def launch(self, broker: BrokerState) -> None:
        """Start the broker's JVM and return at once."""
        properties = self._write_properties(broker, self._data(broker))
        # A broker on a developer's machine starts more often than it runs for hours: the quick compiler and the
        # simple collector take half the processor time of a start.
        heap = (
            f"-Xmx{_HEAP_MEGABYTES_MAX}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            *self.archive.options,
        )
        command = self._java(*heap, "kafka.Kafka", str(properties))
        broker_daemon(self.folder, broker).start(command, self.environ)

    def _check_cluster(self, data: Path) -> None:
        meta = data / "meta.properties"
        properties = meta.read_text(encoding="utf-8") if meta.exists() else "no meta.properties"
        if f"cluster.id={self.state.cluster_id}\n" not in properties:
            raise UnavailableError(
                f"{data} isn't the storage of this stack's Kafka cluster (expected cluster.id="
                f"{self.state.cluster_id} in {meta}). `sitelog up --reset` clears it; --dir names another folder"
            )

    def _data(self, broker: BrokerState) -> Path:
        return self.folder / f"{_NAME}{broker.node_id}"

    def _write_properties(self, broker: BrokerState, data: Path) -> Path:
        path = self.folder / "run" / f"{_NAME}{broker.node_id}.properties"
        path.parent.mkdir(exist_ok=True)
        path.write_text(server_properties(self.state, broker, data), encoding="utf-8")
        return path

    def _java(self, *arguments: str) -> list[str]:
        options = [argument for argument in arguments if argument.startswith("-X")]
        program = [argument for argument in arguments if not argument.startswith("-X")]
        logging = files("sitelog.deploy").joinpath("broker", "log4j2.properties")
        logging_option = f"-Dlog4j2.configurationFile={logging}"
        return [self.java, *options, logging_option, "-cp", f"{self.jars}/*", *program]
