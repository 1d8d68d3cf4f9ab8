"""The embedded stack: Kafka, Postgres, topics, schema and workers, in one state folder."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sitelog.deploy._configuration import write_configuration
from sitelog.deploy._daemon import started_daemons
from sitelog.deploy._database import ensure_database
from sitelog.deploy._disk import FREE_BYTES_MIN, require_free_space
from sitelog.deploy._folder import clear, is_ours, locked, require_ours, take
from sitelog.deploy._java import find_java
from sitelog.deploy._ports import free_port, require_free
from sitelog.deploy._postgres_data import find_binaries
from sitelog.deploy._state import StackState, new_state, read_state, write_state
from sitelog.deploy._supervisor import supervisor_name
from sitelog.deploy._threads import to_the_end
from sitelog.deploy._workers import start_workers, stop_workers, worker_name
from sitelog.deploy.kafka import start_brokers, stop_brokers
from sitelog.deploy.postgres import require_postgres, start_postgres, stop_postgres
from sitelog.projections._install import install
from sitelog.streams.errors import ConfigError, UnavailableError
from sitelog.streams.settings import load_settings
from sitelog.streams.topics import create_topics

# Overrides that point elsewhere: an embedded stack's own services are where its own file says.
_FOREIGN_OVERRIDES = ("SITELOG__KAFKA_CONFIG__", "SITELOG__DATABASE_CONFIG__")


@dataclass(frozen=True)
class Wanted:
    """What the user asked for; None is what the stack has already, or one of it where it is new."""

    brokers: int | None = None
    workers: int | None = None
    # None is any free one; only a new stack takes them.
    kafka_port: int | None = None
    postgres_port: int | None = None
    postgres_bin: Path | None = None
    free_bytes_min: int = FREE_BYTES_MIN


@dataclass(frozen=True)
class Stack:
    """The stack in `folder`; what happens to it is told to `say`, a line at a time."""

    folder: Path
    environ: Mapping[str, str]
    say: Callable[[str], None]

    async def up(self, wanted: Wanted) -> Path:
        """Start what isn't running, and return the path of the configuration for it all.

        Repeating it is harmless. Ended half-way it leaves what it has started, and the next one goes on from there.
        Raises UnavailableError or ConfigError with what to do.
        """
        take(self.folder)
        with locked(self.folder):
            require_free_space(self.folder, wanted.free_bytes_min)
            state = _settle(read_state(self.folder), wanted)
            if wanted.postgres_bin is not None:
                # Before it is remembered: the next `up` would fail by it too.
                await asyncio.to_thread(require_postgres, self.folder, state, self.environ)
            write_state(self.folder, state)
            await self._start_services(state)
            config = write_configuration(self.folder, state)
            await self._prepare(state, config)
            await self._match_workers(state, wanted.workers, config)
        return config

    async def down(self) -> list[str]:
        """End everything and return the names of what was running; the data stays.

        Workers go first, so that they can still commit. Harmless if nothing runs; over after 100 s at the latest.
        Raises ConfigError if the folder is used for something else, UnavailableError if something can't be ended.
        """
        require_ours(self.folder)
        # The lock would make even an empty folder one of ours, whose content a reset deletes.
        if not is_ours(self.folder):
            return []
        return await asyncio.to_thread(self._stop_alone)

    def require_possible(self, wanted: Wanted) -> None:
        """Raise as `up` would for a new stack, as far as that can be known while there is another one."""
        state = _settle(None, wanted)
        find_java(self.environ)
        find_binaries(state.postgres_bin, self.environ)
        self._require_free_ports(state)

    async def reset(self) -> None:
        """End everything and delete data, logs and configuration (`_folder.content`); repeating it is harmless."""
        require_ours(self.folder)
        if self.folder.is_dir():
            await asyncio.to_thread(self._reset_alone)

    def _require_free_ports(self, state: StackState) -> None:
        """Raise UnavailableError if somebody else listens where a new stack's brokers or Postgres are to."""
        held: set[int] = set()
        if any(daemon.running() for daemon in started_daemons(self.folder)):
            try:
                old = read_state(self.folder)
            except ConfigError:
                return  # a reset is what mends it; which ports are this stack's nobody knows
            held = old.ports() if old else held
        wanted = {broker.port: (f"Kafka broker {broker.node_id}", "--kafka-port") for broker in state.brokers}
        for port, (service, option) in {**wanted, state.postgres_port: ("Postgres", "--postgres-port")}.items():
            if port not in held:
                require_free(port, service, option)

    def own_environ(self) -> dict[str, str]:
        """Return the environment without what would lead a client of this stack to another's Kafka or Postgres."""
        # Capitals don't count in an override's name, nor in this one.
        return {name: value for name, value in self.environ.items() if not name.upper().startswith(_FOREIGN_OVERRIDES)}

    async def _start_services(self, state: StackState) -> None:
        """Start Kafka and Postgres side by side; if one fails, the other is still brought to its end."""
        brokers = "1 broker" if len(state.brokers) == 1 else f"{len(state.brokers)} brokers"
        self.say(f"Starting Kafka ({brokers}) and Postgres in {self.folder}")
        outcomes = await asyncio.gather(
            start_brokers(self.folder, state, self.environ, self.say),
            start_postgres(self.folder, state, self.environ),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _prepare(self, state: StackState, config: Path) -> None:
        self.say("Creating roles, tables and topics where they are missing")
        settings = load_settings(config, self.own_environ())
        await ensure_database(state)
        await install(settings)
        await create_topics(settings)

    async def _match_workers(self, state: StackState, count: int | None, config: Path) -> None:
        """Start or end workers until as many run as were asked for."""
        ports = state.worker_ports
        if count is not None:
            surplus = [worker_name(index) for index in range(count, len(ports))]
            await to_the_end(stop_workers, self.folder, surplus)
            del ports[count:]
            while len(ports) < count:
                ports.append(free_port(besides=state.ports()))
            write_state(self.folder, state)
        self.say(f"Starting {len(ports)} worker{'' if len(ports) == 1 else 's'}")
        await start_workers(self.folder, ports, config, self.own_environ())

    # Locked in the thread: one that Ctrl-C no longer waits for goes on to its end, and so does its lock.
    def _stop_alone(self) -> list[str]:
        with locked(self.folder):
            return self._stop()

    def _reset_alone(self) -> None:
        with locked(self.folder):
            self._stop()
            clear(self.folder)

    def _stop(self) -> list[str]:
        """End whatever was started, without the state file, which may be damaged or gone.

        Raises UnavailableError, once all the others have ended, if something lives on.
        """
        running = [daemon for daemon in started_daemons(self.folder) if daemon.running()]
        stop_workers(self.folder)
        stop_postgres(self.folder)
        stop_brokers(self.folder)
        left = [f"{daemon.name} (pid {process.pid})" for daemon in running if (process := daemon.running())]
        if left:
            raise UnavailableError(
                f"not even SIGKILL has ended {', '.join(left)}: a process that waits for a disk ends only when that "
                "answers. Run `sitelog down` again then"
            )
        # A worker and its supervisor are one to the reader.
        return sorted({supervisor_name(daemon.name) for daemon in running})


def _settle(state: StackState | None, wanted: Wanted) -> StackState:
    """Return the folder's state, or a new one, after holding it against what is asked for."""
    if state is None:
        state = new_state(
            brokers=wanted.brokers or 1,
            kafka_port=wanted.kafka_port or 0,
            postgres_port=wanted.postgres_port or 0,
        )
        state.worker_ports.append(free_port(besides=state.ports()))
    _require_same("number of brokers", "--brokers", len(state.brokers), wanted.brokers)
    _require_same("first Kafka port", "--kafka-port", state.brokers[0].port, wanted.kafka_port)
    _require_same("Postgres port", "--postgres-port", state.postgres_port, wanted.postgres_port)
    if wanted.postgres_bin is not None:
        state.postgres_bin = wanted.postgres_bin.resolve()
    return state


def _require_same(what: str, option: str, found: int, asked: int | None) -> None:
    if asked and asked != found:
        raise ConfigError(
            f"expected {what} {asked}, as {option} says, found {found}: that was decided when this stack was made. "
            f"Leave {option} out, or add --reset for a new stack, or name another folder with --dir"
        )
