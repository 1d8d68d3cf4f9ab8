"""The embedded Postgres: a real server on the loopback interface, passwords required."""

import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path

import asyncpg

from sitelog.deploy._daemon import Daemon, stop_together
from sitelog.deploy._ports import LOOPBACK, require_free
from sitelog.deploy._postgres_data import SUPERUSER, ensure_data, find_binaries, require_version
from sitelog.deploy._ready import DISK_FULL, Advice, until_ready
from sitelog.deploy._state import StackState
from sitelog.deploy._threads import to_the_end
from sitelog.streams.errors import UnavailableError

START_SECONDS_MAX = 60
# SIGINT ends sessions and writes a checkpoint, SIGQUIT ends at once and recovers at the next start.
_STOP_STEPS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
# Nobody listens, or it starts, recovers, ends or was just killed.
_NOT_YET = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
)
_ADVICE = (
    DISK_FULL,
    Advice("Address already in use", "Another process took the port meanwhile: run `sitelog up` again"),
    Advice("could not map anonymous shared memory", "The machine is out of memory: Postgres needs up to 600 MB"),
    Advice("pre-existing shared memory block", "An older server still ends: run `sitelog up` again in a few seconds"),
    Advice('lock file "postmaster.pid" already exists', "Another server uses this data folder: end it first"),
)
# Each differs from the default; everything else, fsync above all, stays as a production server has it.
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    # No socket in the file system: its path is limited to 107 characters, and folders may be deeper.
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "512MB",
    # A replay of millions of events would otherwise force a checkpoint every few seconds.
    "max_wal_size": "4GB",
    # A worker that was cut off loses its locks after 25 s, not after two hours.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "password_encryption": "scram-sha-256",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] %u@%d ",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


def postgres_daemon(folder: Path) -> Daemon:
    """Return the handle of the Postgres server of the stack in `folder`."""
    return Daemon(folder, "postgres")


def require_postgres(folder: Path, state: StackState, environ: Mapping[str, str]) -> None:
    """Raise UnavailableError unless the Postgres that `state` names is there and fits the data, if there is any."""
    binaries = find_binaries(state.postgres_bin, environ)
    if _data(folder).exists():
        require_version(_data(folder), binaries)


async def start_postgres(folder: Path, state: StackState, environ: Mapping[str, str]) -> list[str]:
    """Start the server unless it runs, and return what was started once it answers queries.

    The data folder is made the first time. Raises UnavailableError with what to do.
    """
    daemon = postgres_daemon(folder)
    started = daemon.running() is None
    if started:
        require_free(state.postgres_port, "Postgres", "--postgres-port (with --reset)")
        binaries = await asyncio.to_thread(find_binaries, state.postgres_bin, environ)
        data = _data(folder)
        await to_the_end(ensure_data, data, state.superuser_password.get_secret_value(), binaries, environ)
        settings = {**_SETTINGS, "port": str(state.postgres_port)}
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        # The log's messages are matched against _ADVICE, so they have to be English.
        english = {**environ, "LC_ALL": "C"}
        daemon.start([*binaries.command("postgres"), "-D", str(data), *arguments], english)

    async def answer() -> bool:
        return await accepts(state)

    await until_ready(daemon, answer, seconds_max=START_SECONDS_MAX, advice=_ADVICE)
    return [daemon.name] if started else []


def _data(folder: Path) -> Path:
    return folder / "postgres"


def stop_postgres(folder: Path) -> None:
    """End the server: sessions are cut, data is written; harmless if none runs."""
    stop_together([postgres_daemon(folder)], _STOP_STEPS)


async def connect_as_superuser(state: StackState, database: str = "postgres") -> asyncpg.Connection:
    """Open a connection that may do everything; the caller closes it."""
    return await asyncpg.connect(
        host=LOOPBACK,
        port=state.postgres_port,
        user=SUPERUSER,
        password=state.superuser_password.get_secret_value(),
        database=database,
        ssl=False,
        timeout=5,
    )


async def accepts(state: StackState) -> bool:
    """Return whether the server lets the superuser in, within 5 s; raise UnavailableError if it is another's."""
    try:
        connection = await connect_as_superuser(state)
    except _NOT_YET:
        return False
    except asyncpg.InvalidPasswordError:
        raise UnavailableError(
            f"the Postgres on port {state.postgres_port} refuses our password: state.json and the data folder "
            "don't belong together. `sitelog up --reset` clears both"
        ) from None
    await connection.close()
    return True
