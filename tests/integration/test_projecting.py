"""Whatever happens to sites and territories, real Postgres holds the rows that an independent fold ends in."""

from collections.abc import AsyncIterator
from itertools import count, islice
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sitelog.agents.replay import replay
from sitelog.projections._table import BULK_ROWS
from sitelog.streams.examples import example
from sitelog.streams.settings import Settings
from tests.histories import Happening, Unreadable, histories
from tests.lives import Lives
from tests.oracle import compare
from tests.partition import Partition, event, open_partition, renamed
from tests.read_models import LOADED
from tests.written import WrittenLog, open_log

pytestmark = pytest.mark.services

NUMBERS = count()
OPEN_END = {"contract_id": "contract-1", "end_date": "9999-12-31"}


@pytest.fixture(params=["last_write_wins", "reject"])
async def log(request: pytest.FixtureRequest, database: Settings) -> AsyncIterator[WrittenLog]:
    async with open_log(database, LOADED, request.param) as log:
        yield log
        assert log.oracle.conflicts
    report = await replay(database, LOADED, verify=True)
    assert report.differences == ()
    assert report.events == len(log.oracle.applied)


def told_apart(history: list[Happening]) -> list[Happening]:
    """The same with sites, territories and event ids that no history before had: they all share one database."""
    number = next(NUMBERS)

    def apart(one: Happening) -> Happening:
        if isinstance(one, Unreadable):
            return Unreadable(one.topic, f"{number}-{one.entity_id}")
        values: dict[str, Any] = {
            one.key_field: f"{number}-{one.entity_id}"[:100],
            "event_id": str(uuid5(NAMESPACE_URL, f"{number}-{one.event_id}")),
        }
        return one.model_copy(update=values)

    return [apart(one) for one in history]


shared_database = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)


@shared_database
@given(history=histories(), sizes=st.lists(st.integers(1, 6), max_size=6), shared=st.booleans())
async def test_tangled_histories(log: WrittenLog, history: list[Happening], sizes: list[int], *, shared: bool) -> None:
    await log.write(told_apart(history), sizes=sizes, shared=shared)
    async with log.pool.acquire() as connection:
        assert await compare(connection, log.oracle) == []


@pytest.mark.parametrize("shared", [False, True])
async def test_lives(log: WrittenLog, *, shared: bool) -> None:
    await log.write(islice(Lives(7, sites=40), 1_500), sizes=[500, 300, 1, 1, 1], shared=shared)
    assert bool(log.shared) is shared
    async with log.pool.acquire() as connection:
        assert await compare(connection, log.oracle) == []


@pytest.fixture
async def partitions(database: Settings) -> AsyncIterator[tuple[Partition, Partition]]:
    async with open_partition(database) as one:
        yield one, Partition(one.connection, number=1)


async def test_a_fenced_partition_keeps_the_others_in_its_transaction_from_nothing(
    partitions: tuple[Partition, Partition],
) -> None:
    one, other = partitions
    parts = []
    for partition, site_id in ((one, "site-1"), (other, "site-2")):
        start = partition.append(event("site_created", site_id))
        parts.append(await partition.claimed(start))
    await one.claim()
    outcomes = await one.projector.apply(one.connection, parts)
    assert [outcome.verdict for outcome in outcomes] == ["fenced", "applied"]
    assert (len(await one.log()), len(await other.log())) == (0, 1)


async def test_a_site_in_two_partitions_fails_their_shared_transaction_and_is_the_first_ones_alone(
    partitions: tuple[Partition, Partition],
) -> None:
    one, other = partitions
    parts = []
    for partition in partitions:
        start = partition.append(event("site_created", site_data={"name": f"Named by {partition.number}"}))
        parts.append(await partition.claimed(start))
    with pytest.raises(asyncpg.CardinalityViolationError):
        await one.projector.apply(one.connection, parts)
    assert (len(await one.log()), len(await other.log())) == (0, 0)
    (outcome,) = await one.projector.apply(one.connection, parts[:1])
    assert (outcome.verdict, outcome.events) == ("applied", 1)
    (outcome,) = await one.projector.apply(one.connection, parts[1:])
    assert (outcome.verdict, outcome.events, outcome.parked) == ("applied", 0, 1)
    assert (len(await one.log()), len(await other.log())) == (1, 0)


async def test_an_event_that_comes_to_nothing_is_put_aside_where_its_entity_is_of_another_partition(
    partitions: tuple[Partition, Partition],
) -> None:
    """It changes no row, so Postgres has nothing to refuse; and a replay folds each partition by itself."""
    one, other = partitions
    await one.feed(event("site_created"), event("site_deleted"))
    await other.feed(event("site_created", "site-2"))
    outcome = await other.feed(renamed())
    assert (outcome.events, outcome.parked, outcome.conflicts) == (0, 1, 0)
    assert [reason for _, _, reason in await other.parked()] == ["wrong_partition"]
    assert (len(await one.log()), len(await other.log())) == (2, 1)


async def test_the_first_and_the_last_day_are_days_and_not_infinity(database: Settings) -> None:
    """Whoever reads with plain SQL sees the day that the producer named, and so does whoever changes the row."""
    site = example("site_created", site_data={"contract_info": {**OPEN_END, "start_date": "0001-01-01"}})
    many = [  # enough for every partition to write them by COPY
        site.model_copy(update={"site_id": f"garage-{number}", "event_id": str(uuid4())})
        for number in range(10 * BULK_ROWS)
    ]
    async with open_log(database, LOADED) as log:
        await log.write([site])
        await log.write([example("contract_terminated", termination_date="9999-12-31"), *many])
        rows = await log.pool.fetch(
            "SELECT DISTINCT start_date::text, end_date::text, terminated_on::text FROM contracts ORDER BY 3"
        )
        assert [tuple(row) for row in rows] == [
            ("0001-01-01", "9999-12-31", "9999-12-31"),
            ("0001-01-01", "9999-12-31", None),
        ]
        async with log.pool.acquire() as connection:
            assert await compare(connection, log.oracle) == []
