"""The embedded stack's workers: each a process of its own under a supervisor of its own."""

import asyncio
import functools
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from sitelog.deploy._daemon import Daemon, started_daemons, stop_together
from sitelog.deploy._ports import LOOPBACK, require_free
from sitelog.deploy._ready import until_ready
from sitelog.deploy._supervisor import forget_restarts, read_restarts, supervisor_name, worker_daemon

# A worker commits its first record 1.5 s after its launch; one that waits for a ghost's session needs 10 s more.
START_SECONDS_MAX = 60
_NAME = "projector-"
_PROBE_SECONDS = 2.0
# A worker ends itself within `worker.shutdown_seconds`, 10 unless configured; then its supervisor kills it.
_GRACE_SECONDS = 30
_STOP_STEPS = ((signal.SIGTERM, _GRACE_SECONDS + 5.0), (signal.SIGKILL, 5.0))


def worker_name(index: int) -> str:
    """Return the name of the worker with this 0-based index: also its instance id in Kafka's group."""
    return f"{_NAME}{index + 1}"


async def start_workers(folder: Path, ports: Sequence[int], config: Path, environ: Mapping[str, str]) -> list[str]:
    """Start a supervised worker for each web port that has none, and return their names once all are ready.

    Raises UnavailableError with the log's last lines if one dies while starting. Its supervisor goes on trying.
    """
    names = {worker_name(index): port for index, port in enumerate(ports)}
    missing = [name for name in names if Daemon(folder, name).running() is None]
    # The worker of a supervisor that was killed lives on, and would hold port and partitions.
    stop_together([worker_daemon(folder, name) for name in missing], _STOP_STEPS)
    for name in missing:
        require_free(names[name], f"worker {name}", "`sitelog up --reset`")
        _launch(folder, name, names[name], config, environ)
    await asyncio.gather(*(_until_first_ready(folder, name, names[name]) for name in missing))
    # A worker that joins makes the others give partitions up, and for a moment they aren't ready.
    await asyncio.gather(*(_until_ready(folder, name, port) for name, port in names.items()))
    return missing


def stop_workers(folder: Path, names: Sequence[str] | None = None) -> None:
    """End these workers and their supervisors, or all, at once: politely, then with SIGKILL; harmless if none runs."""
    if names is None:
        started = [supervisor_name(daemon.name) for daemon in started_daemons(folder)]
        names = sorted({name for name in started if name.startswith(_NAME)})
    stop_together([Daemon(folder, name) for name in names], _STOP_STEPS)
    # Gone with its supervisor, unless that was killed.
    stop_together([worker_daemon(folder, name) for name in names], _STOP_STEPS)


async def is_ready(port: int) -> bool:
    """Return whether the worker with this web port says that it is ready, within 2 s."""
    # No proxy from the environment may stand between a machine and itself.
    async with httpx.AsyncClient(timeout=_PROBE_SECONDS, trust_env=False) as client:
        try:
            answer = await client.get(f"http://{LOOPBACK}:{port}/readyz")
        except httpx.HTTPError:
            return False
    return answer.status_code == httpx.codes.OK


def _launch(folder: Path, name: str, port: int, config: Path, environ: Mapping[str, str]) -> None:
    forget_restarts(folder, name)
    supervisor = [sys.executable, "-m", "sitelog.deploy._supervisor", str(folder), name, str(_GRACE_SECONDS)]
    worker = [sys.executable, "-m", "sitelog.cli", "worker", "projector", "--config", str(config)]
    # The port keeps its place across restarts, and the instance id makes a restart one without a rebalance.
    own = {"SITELOG__WORKER__WEB_PORT": str(port), "SITELOG__WORKER__INSTANCE_ID": name}
    Daemon(folder, name).start([*supervisor, *worker], {**environ, **own})


async def _until_first_ready(folder: Path, name: str, port: int) -> None:
    """Wait for a worker that was started just now: if it dies even once, something is wrong."""
    supervisor = Daemon(folder, name)

    def has_died() -> bool:
        return supervisor.running() is None or read_restarts(folder, name).count > 0

    ready = functools.partial(is_ready, port)
    await until_ready(supervisor, ready, seconds_max=START_SECONDS_MAX, has_ended=has_died)


async def _until_ready(folder: Path, name: str, port: int) -> None:
    ready = functools.partial(is_ready, port)
    await until_ready(Daemon(folder, name), ready, seconds_max=START_SECONDS_MAX)
