"""No worker goes on with a read model that lacks a part of the log."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from sitelog.projections import _install
from sitelog.projections._database import connect, open_pool
from sitelog.projections._install import create_table, owner_of
from sitelog.projections._positions import PostgresPositions
from sitelog.projections._projection import Projection
from sitelog.projections._read_models import PROJECTOR, built
from sitelog.projections._registry import load
from sitelog.streams.errors import Halt
from sitelog.streams.settings import Settings
from tests.commands import config_file, sitelog
from tests.conftest import Services

pytestmark = pytest.mark.services

TOPIC = "customer-sites-events"
ALL = load()
OLD, NEW = ALL[:-1], ALL[-1]


@pytest.fixture
async def pool(database: Settings) -> AsyncIterator[asyncpg.Pool]:
    async with await open_pool(database.database_config.primary) as pool:
        yield pool


@pytest.fixture
async def owner(database: Settings) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(owner_of(database))
    yield connection
    await connection.close()


async def claim(pool: asyncpg.Pool, projections: Any, *, partition: int = 0) -> bool:
    positions = PostgresPositions(pool, PROJECTOR, "a worker", projections)
    return await positions.claim(TOPIC, partition, 1, force=True) is not None


async def move(owner: asyncpg.Connection, events: int, *, partition: int = 0) -> int:
    """Let the log go on, as a worker's transaction does; return the log partition's number."""
    number: int = await owner.fetchval(
        "UPDATE sitelog.consumer_position SET log_seq = log_seq + $1 WHERE log_partition = "
        "(SELECT log_partition FROM sitelog.log_partition WHERE topic = $2 AND partition = $3) RETURNING log_partition",
        events,
        TOPIC,
        partition,
    )
    return number


async def check(owner: asyncpg.Connection, projections: Any) -> None:
    await _install.check(owner, projections)


async def test_a_database_without_events_lacks_nothing(owner: asyncpg.Connection) -> None:
    await check(owner, ALL)


async def test_those_that_a_worker_keeps_lack_nothing(pool: asyncpg.Pool, owner: asyncpg.Connection) -> None:
    assert await claim(pool, ALL)
    await move(owner, 10)
    await check(owner, ALL)
    assert await claim(pool, ALL)


async def test_a_new_read_model_of_an_existing_log_must_be_replayed_first(
    pool: asyncpg.Pool, owner: asyncpg.Connection
) -> None:
    await claim(pool, OLD)
    await move(owner, 10)
    with pytest.raises(Halt, match=rf"{NEW.table} lacks 10 events.*run `sitelog replay {NEW.name}`"):
        await check(owner, ALL)
    with pytest.raises(Halt, match=NEW.table):
        await claim(pool, ALL)


async def test_init_says_which_replay_is_due(
    services: Services, database: Settings, pool: asyncpg.Pool, owner: asyncpg.Connection
) -> None:
    config = config_file(services, database.database_config.primary.database)
    await claim(pool, OLD)
    number = await move(owner, 10)
    ran = await sitelog(config, "db", "init")
    assert (ran.code, ran.err) == (0, "")
    assert f"no worker starts: read models without a part of the log: {NEW.table} lacks 10 events" in ran.out
    assert f"run `sitelog replay {NEW.name}`" in ran.out
    await built(owner, [NEW], {number: 10})
    assert (await sitelog(config, "db", "init")).out.endswith(" has what this release needs\n")


async def test_a_replay_up_to_the_position_makes_it_whole(pool: asyncpg.Pool, owner: asyncpg.Connection) -> None:
    await claim(pool, OLD)
    number = await move(owner, 10)
    await built(owner, [NEW], {number: 9})
    with pytest.raises(Halt, match="lacks 1 events"):
        await check(owner, ALL)
    await built(owner, [NEW], {number: 10})
    await check(owner, ALL)
    assert await claim(pool, ALL)
    await move(owner, 5)
    await check(owner, ALL)


async def test_what_a_worker_without_it_adds_after_its_replay_is_missed(
    pool: asyncpg.Pool, owner: asyncpg.Connection
) -> None:
    await claim(pool, OLD)
    await claim(pool, OLD, partition=1)
    await built(owner, [NEW], {await move(owner, 10): 10, await move(owner, 20, partition=1): 20})
    assert await claim(pool, ALL)
    await move(owner, 1)
    await move(owner, 3, partition=1)
    with pytest.raises(Halt, match="lacks 3 events"):
        await claim(pool, ALL, partition=1)
    assert await claim(pool, ALL)


async def test_what_an_older_release_adds_when_it_comes_back_is_missed(
    pool: asyncpg.Pool, owner: asyncpg.Connection
) -> None:
    await claim(pool, ALL)
    await move(owner, 10)
    await claim(pool, OLD)
    await move(owner, 2)
    with pytest.raises(Halt, match=NEW.table):
        await check(owner, ALL)


async def test_another_version_is_another_read_model_and_the_view_waits_for_it(
    pool: asyncpg.Pool, owner: asyncpg.Connection
) -> None:
    await claim(pool, ALL)
    number = await move(owner, 1)
    await owner.execute(
        "INSERT INTO sitelog.event_log VALUES ($1, 1, 0, gen_random_uuid(), '', '', now(), now(), now(), 0, NULL, '')",
        number,
    )
    second: Projection[Any] = Projection(name=NEW.name, version=2, key=NEW.key, row=NEW.row)
    await create_table(owner, second)
    definition = await owner.fetchval("SELECT pg_get_viewdef($1::regclass)", NEW.name)
    assert NEW.table in definition
    with pytest.raises(Halt, match=f"{second.table} lacks 1 events"):
        await check(owner, [*OLD, second])
