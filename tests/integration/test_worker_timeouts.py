"""What takes too long in Postgres ends, and is tried again: also where Postgres's own timeouts don't look."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest

from sitelog.projections import _follow
from sitelog.projections._database import connect, open_pool, transient
from sitelog.projections._positions import PostgresPositions
from sitelog.projections._read_models import PROJECTOR
from sitelog.projections._registry import load
from sitelog.streams._batch import Position
from sitelog.streams.errors import Retry
from sitelog.streams.settings import DatabaseSettings, Settings, WorkerSettings
from tests.until import until

pytestmark = pytest.mark.services

TOPIC = "customer-sites-events"
WORKER = WorkerSettings(
    idle_in_transaction_timeout_seconds=1,
    lock_timeout_seconds=1,
    statement_timeout_seconds=2,
    transaction_timeout_seconds=3,
)
FREEZES_SECONDS = 60.0
NEWS = "SELECT pg_notify($1, repeat('x', 7000) || g) FROM generate_series(1, 5000) AS g"
MAKE_TABLE = "CREATE TEMPORARY TABLE frozen (line text)"


@pytest.mark.parametrize("setting", ["statement_timeout", "transaction_timeout"])
async def test_what_took_too_long_is_tried_again(database: Settings, setting: str) -> None:
    connection = await connect(database.database_config.primary, worker=WorkerSettings())
    await connection.execute("SELECT set_config($1, '100ms', FALSE)", setting)
    await connection.execute("BEGIN")

    with pytest.raises(asyncpg.PostgresError) as ended:
        await connection.execute("SELECT pg_sleep(5)")

    connection.terminate()
    assert transient(ended.value), type(ended.value)


async def test_a_workers_statement_may_take_as_long_as_is_configured(database: Settings) -> None:
    worker = WorkerSettings(statement_timeout_seconds=60, transaction_timeout_seconds=70)
    async with (
        await open_pool(database.database_config.primary, worker=worker) as pool,
        pool.acquire() as connection,
    ):
        assert await connection.fetchval("SHOW statement_timeout") == "1min"
        assert connection._config.command_timeout == 65, "asyncpg itself gives up before Postgres does"


async def test_a_transaction_may_take_a_part_of_a_second_more_too(database: Settings) -> None:
    worker = WorkerSettings(**{**WORKER.model_dump(), "transaction_timeout_seconds": 2.5})
    connection = await connect(database.database_config.primary, worker=worker)

    assert await connection.fetchval("SHOW transaction_timeout") == "2500ms"

    await connection.close()


async def test_a_server_that_vanishes_is_given_up_by_a_command_and_by_a_worker(database: Settings) -> None:
    primary = database.database_config.primary
    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
    connection = await connect(primary)
    async with await open_pool(primary) as pool, pool.acquire() as pooled:
        for one in (connection, pooled):
            link = one._transport.get_extra_info("socket")
            assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert [link.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [10, 5, 3, 25_000]
    await connection.close()


async def test_postgres_does_not_keep_its_news_for_a_listener_that_is_suspended(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_follow, "UNREAD_SECONDS_MAX", 1)
    suspended = await connect(database.database_config.primary, application="sitelog log")
    worker = await connect(database.database_config.primary)
    await _follow.Bell(suspended).listen()
    suspended._transport.pause_reading()

    await worker.execute(NEWS, _follow.CHANNEL)

    gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)"
    await until("the end of its session", lambda: worker.fetchval(gone, suspended.get_server_pid()))
    assert await worker.fetchval("SELECT pg_notification_queue_usage()") == 0
    suspended.terminate()
    await worker.close()


@pytest.mark.parametrize("application", ["sitelog projector", "sitelog parked retry"])
async def test_who_froze_in_the_middle_of_a_copy_loses_its_locks_on_positions(
    database: Settings, application: str
) -> None:
    primary = database.database_config.primary
    async with await open_pool(primary, application="sitelog projector", worker=WORKER) as pool:
        positions = PostgresPositions(pool, PROJECTOR, "its successor", load())
        assert await positions.claim(TOPIC, 0, 1, force=True)
        async with frozen_in_a_copy(primary, application, holding="SELECT FROM sitelog.consumer_position FOR UPDATE"):

            async def claimed() -> Position | None:
                with suppress(Retry):
                    return await positions.claim(TOPIC, 0, 2, force=False)
                return None

            async with frozen_in_a_copy(primary, application, holding="SELECT FROM sitelog.consumer_position"):
                await until("two that wait for their clients", lambda: are_copying(pool, 2))
                claim = await until("the claim", claimed, seconds=15)
                assert claim.epoch == 2
                assert await are_copying(pool, 1)  # the other holds up nobody


@asynccontextmanager
async def frozen_in_a_copy(primary: DatabaseSettings, application: str, holding: str) -> AsyncIterator[None]:
    """Begin a transaction with `holding`, and stop half-way through a COPY: none of Postgres's timeouts ends that."""

    async def source() -> AsyncIterator[bytes]:
        yield b"one\n"
        await asyncio.sleep(FREEZES_SECONDS)

    async def freeze() -> None:
        await frozen.execute(MAKE_TABLE)
        async with frozen.transaction():
            await frozen.execute(holding)
            await frozen.copy_to_table("frozen", source=source())

    frozen = await connect(primary, application=application, worker=WORKER)
    copying = asyncio.create_task(freeze())
    yield
    copying.cancel()
    with suppress(asyncio.CancelledError, asyncpg.InterfaceError, asyncpg.PostgresError):
        await copying
    frozen.terminate()


async def are_copying(pool: asyncpg.Pool, count: int) -> bool:
    found: int = await pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%' AND wait_event = 'ClientRead'"
    )
    return found == count
