"""Connections to Postgres: pools with timeouts on every side, and which errors heal by themselves."""

import errno
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import date
from typing import Any, Final

import asyncpg

from sitelog.projections._binary import POSTGRES_DAY_0
from sitelog.projections._fold import Misplaced
from sitelog.projections._packed import UnfitValueError
from sitelog.projections._projection import OWNER
from sitelog.streams.errors import ConfigError, Park, UnavailableError, reason_of
from sitelog.streams.settings import DatabaseSettings, WorkerSettings, is_loopback

IDLE_SECONDS, INTERVAL_SECONDS, PROBES = 10, 5, 3

KEEPALIVES: Final = {
    "tcp_keepalives_idle": str(IDLE_SECONDS),
    "tcp_keepalives_interval": str(INTERVAL_SECONDS),
    "tcp_keepalives_count": str(PROBES),
}
"""How soon the server gives up a client that has vanished."""

# Not every platform has each. Without the last, what nobody confirms is sent again for a quarter of an hour.
CLIENT_KEEPALIVES: Final = {
    "TCP_KEEPIDLE": IDLE_SECONDS,
    "TCP_KEEPINTVL": INTERVAL_SECONDS,
    "TCP_KEEPCNT": PROBES,
    "TCP_USER_TIMEOUT": (IDLE_SECONDS + INTERVAL_SECONDS * PROBES) * 1000,
}
"""How soon we give up a server that has vanished: the same."""

TRANSACTION_TIMEOUT_SINCE: Final = (17, 0)
"""The Postgres version that knows transaction_timeout."""

COMMAND_MARGIN_SECONDS: Final = 5.0
"""Beyond statement_timeout: Postgres ends a statement first, unless it no longer answers."""

CLOSE_SECONDS_MAX: Final = 2.0

OWN_SCHEMA: Final = "sitelog"
"""Log, positions and parked events; the read models are elsewhere."""

UNREACHABLE: Final = (
    OSError,
    TimeoutError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
)
"""No connection, or none any more; whoever gets another answer from Postgres has reached it."""

TRANSIENT: Final = (
    *UNREACHABLE,
    asyncpg.TooManyConnectionsError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InsufficientResourcesError,
)


def transient(error: BaseException) -> bool:
    """Tell whether the same again may work later: the server restarts, is busy, or a connection broke."""
    # asyncpg's client-side DataError is an InterfaceError too, and repeating bad data helps nobody.
    return type(error) is asyncpg.InterfaceError or isinstance(error, TRANSIENT)


def refused_data(error: BaseException) -> bool:
    """Tell whether Postgres can't hold a value: the fault of one event, not of the database.

    A key or a rule of our own tables that is broken is no event's fault, and would put aside one after the other.
    """
    if getattr(error, "schema_name", None) == OWN_SCHEMA:
        return False
    data = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)
    client_side = isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError)
    return isinstance(error, data) or client_side or isinstance(error, OverflowError | UnfitValueError)


def why_refused(error: BaseException) -> Park:
    """Return why an event is put aside, for an error that is `refused_data`."""
    if isinstance(error, asyncpg.NotNullViolationError) and error.column_name == OWNER:
        return Misplaced()
    return Park("refused_by_database", f"{type(error).__name__}: {error}")


async def open_pool(
    database: DatabaseSettings, *, application: str = "sitelog", worker: WorkerSettings | None = None
) -> asyncpg.Pool:
    """Open the pool that `database` describes, for a worker with the timeouts that its fail-over depends on.

    Raises UnavailableError where Postgres can't be reached and ConfigError where it refuses these credentials.
    """
    limits = database.connection_pool
    statement_seconds = (worker or WorkerSettings()).statement_timeout_seconds

    async def prepare(connection: asyncpg.Connection) -> None:
        keep_alive(connection)
        await limit_transactions(connection, worker)
        await keep_dates(connection)

    try:
        pool: asyncpg.Pool = await asyncpg.create_pool(
            **connect_options(database, application, session_settings(worker)),
            min_size=limits.min_connections,
            max_size=limits.max_connections,
            max_inactive_connection_lifetime=limits.idle_timeout / 1000,
            timeout=limits.connection_timeout / 1000,
            command_timeout=statement_seconds + COMMAND_MARGIN_SECONDS,
            init=prepare,
            reset=keep_session,
        )
    except Exception as error:
        raise refusal(database, error) from error
    return pool


def keep_alive(connection: Any) -> None:
    """Let a connection break when its server's host has vanished: a command waits for a statement without a limit."""
    # asyncpg has no setting for it.
    link: socket.socket = connection._transport.get_extra_info("socket")  # noqa: SLF001
    if link.family == socket.AF_UNIX:
        return
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in CLIENT_KEEPALIVES.items():
        option = getattr(socket, name, None)
        if option is not None:
            link.setsockopt(socket.IPPROTO_TCP, option, value)


async def keep_session(_: asyncpg.Connection) -> None:
    """Spare the round trip that asyncpg resets a session with: nothing here changes one."""


async def keep_dates(connection: asyncpg.Connection) -> None:
    """Let 9999-12-31, which many contracts end on, be that day: asyncpg takes it for infinity."""
    await connection.set_type_codec(
        "date",
        schema="pg_catalog",
        format="tuple",
        encoder=lambda day: (day.toordinal() - POSTGRES_DAY_0,),
        decoder=lambda days: date.fromordinal(days[0] + POSTGRES_DAY_0),
    )


async def limit_transactions(connection: asyncpg.Connection, worker: WorkerSettings | None) -> None:
    """Set the one of a worker's timeouts that not every Postgres knows."""
    if worker is not None and connection.get_server_version() >= TRANSACTION_TIMEOUT_SINCE:
        await connection.execute(
            "SELECT set_config('transaction_timeout', $1, FALSE)", f"{worker.transaction_timeout_seconds * 1000:.0f}ms"
        )


async def connect(
    database: DatabaseSettings,
    *,
    application: str = "sitelog",
    worker: WorkerSettings | None = None,
    statement_seconds: float | None = None,
) -> asyncpg.Connection:
    """Open one connection, for commands; the errors are those of `open_pool`.

    With `worker` it has a worker's timeouts: a command that is suspended must not keep a lock that workers need. With
    `statement_seconds` no statement takes longer, whether it waits for a lock or for Postgres itself.
    """
    settings, command_seconds = session_settings(worker), None
    if statement_seconds is not None:
        settings["statement_timeout"] = f"{statement_seconds * 1000:.0f}ms"
        command_seconds = statement_seconds + COMMAND_MARGIN_SECONDS
    try:
        connection = await asyncpg.connect(
            **connect_options(database, application, settings),
            timeout=database.connection_pool.connection_timeout / 1000,
            command_timeout=command_seconds,
        )
        keep_alive(connection)
        await limit_transactions(connection, worker)
        await keep_dates(connection)
    except Exception as error:
        raise refusal(database, error) from error
    return connection


@asynccontextmanager
async def session(
    database: DatabaseSettings,
    *,
    application: str = "sitelog",
    worker: WorkerSettings | None = None,
    statement_seconds: float | None = None,
) -> AsyncIterator[asyncpg.Connection]:
    """Open one connection for a block, as `connect`; what breaks it or may heal is an UnavailableError too."""
    connection = await connect(database, application=application, worker=worker, statement_seconds=statement_seconds)
    try:
        yield connection
    except BrokenPipeError:
        raise  # that is who reads our output: asyncpg has errors of its own
    except Exception as error:
        if transient(error) and not _of_a_file(error):
            raise refusal(database, error) from error
        raise
    finally:
        with suppress(OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError):
            await connection.close(timeout=CLOSE_SECONDS_MAX)


def _of_a_file(error: Exception) -> bool:
    return isinstance(error, OSError) and (error.filename is not None or error.errno == errno.ENOSPC)


def session_settings(worker: WorkerSettings | None) -> dict[str, str]:
    """Return Postgres's settings for a worker's sessions.

    Its timeouts: a frozen worker must lose its locks before its successor needs them.
    """
    if worker is None:
        return {}
    return {
        # A plan for any keys is made while a table is empty, and reads all of it for as long as the session lasts.
        "plan_cache_mode": "force_custom_plan",
        "idle_in_transaction_session_timeout": f"{worker.idle_in_transaction_timeout_seconds * 1000:.0f}ms",
        "lock_timeout": f"{worker.lock_timeout_seconds * 1000:.0f}ms",
        "statement_timeout": f"{worker.statement_timeout_seconds * 1000:.0f}ms",
    }


def connect_options(database: DatabaseSettings, application: str, session: dict[str, str]) -> dict[str, Any]:
    """Return what asyncpg needs to connect; `session` are Postgres settings for the connection."""
    return {
        "host": database.host,
        "port": database.port,
        "user": database.username,
        "password": database.password.get_secret_value() if database.password else None,
        "database": database.database,
        "ssl": ssl_context(database),
        "server_settings": {"application_name": application, "timezone": "UTC", **KEEPALIVES, **session},
    }


def ssl_context(database: DatabaseSettings) -> ssl.SSLContext | str | bool:
    """Return asyncpg's ssl argument: never one that falls back to plain text on a host that isn't loopback.

    Raises ConfigError if `ssl_rootcert` can't be read.
    """
    mode = database.ssl_mode
    if mode in ("verify-ca", "verify-full"):
        try:
            context = ssl.create_default_context(cafile=database.ssl_rootcert)
        except OSError as error:
            reason = getattr(error, "reason", None) or error.strerror or "no certificate in it"
            raise ConfigError(
                f"database_config: ssl_rootcert: expected a PEM file of certificates, got {database.ssl_rootcert}: "
                f"{reason}"
            ) from error
        context.check_hostname = mode == "verify-full"
        return context
    if mode in ("allow", "prefer") and not is_loopback(database.host):
        return "require"
    return False if mode == "disable" else mode


def refusal(database: DatabaseSettings, error: Exception) -> Exception:
    """Return what to tell a person of a connection that failed; the password is never part of it."""
    where = f"Postgres at {database.host}:{database.port}, database {database.database}, user {database.username}"
    if isinstance(error, asyncpg.InvalidPasswordError | asyncpg.InvalidAuthorizationSpecificationError):
        return ConfigError(f"{where}: refused: {error}. Check username and password in database_config")
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return ConfigError(f"{where}: refused: {error.message}. Run `sitelog db init`, or `GRANT CONNECT` as its owner")
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return ConfigError(f"{where}: {error}. Create it, or correct `database` in database_config")
    if isinstance(error, ssl.SSLError) or (isinstance(error, ConnectionError) and "SSL" in str(error)):
        return ConfigError(f"{where}: {_of_tls(database, error)}")
    if not transient(error):
        return error
    reached = not isinstance(error, (*UNREACHABLE, asyncpg.InterfaceError))
    problem, advice = ("failed", "Try again") if reached else ("can't be reached", "Is it running?")
    return UnavailableError(f"{where} {problem}: {reason_of(error)}. {advice}")


def _of_tls(database: DatabaseSettings, error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate isn't trusted: {error.verify_message}. Check ssl_rootcert and host in database_config"
    return f"TLS with ssl_mode {database.ssl_mode} failed: {error}"
