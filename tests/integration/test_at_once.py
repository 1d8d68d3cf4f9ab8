"""Few events are loaded and written with one statement each; whatever has changed in between, nothing is lost by it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from sitelog.projections._database import connect
from sitelog.projections._install import owner_of
from sitelog.projections._log import seen_before
from sitelog.projections._slice import Outcome, Slice
from sitelog.projections._switch import TOUCH
from sitelog.projections._transaction import AT_ONCE_BYTES_MAX, AT_ONCE_RECORDS_MAX
from sitelog.streams._event import Event
from sitelog.streams.settings import Settings
from tests.partition import Partition, event, open_partition, renamed

pytestmark = pytest.mark.services

WRITES = "unchanged AS MATERIALIZED"


@dataclass
class Watched:
    """A connection that counts transactions and statements, and lets something happen before the one that writes."""

    connection: Any
    transactions: int = 0
    statements: list[str] = field(default_factory=list)
    before_write: Callable[[], Awaitable[object]] | None = None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        self.transactions += 1
        async with self.connection.transaction():
            yield

    async def fetch(self, sql: str, *arguments: Any) -> Any:
        self.statements.append(sql)
        if WRITES in sql and self.before_write is not None:
            happens, self.before_write = self.before_write, None
            await happens()
        return await self.connection.fetch(sql, *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)


@dataclass
class Lane:
    """A partition of a worker that has created a site and named it, so that it knows where it left the position."""

    partition: Partition
    watched: Watched
    epoch: int
    owner: Any

    async def apply(self, *events: Event) -> Outcome:
        """Append events and apply them under the worker's claim."""
        (outcome,) = await self.partition.projector.apply(self.watched, [self.slice(*events)])
        return outcome

    def slice(self, *events: Event) -> Slice:
        return self.partition.part(self.partition.append(*events), self.epoch)


@pytest.fixture
async def lane(database: Settings, own_connection: Any) -> AsyncIterator[Lane]:
    async with open_partition(database) as partition:
        lane = Lane(partition, Watched(partition.connection), await partition.claim(), own_connection)
        await lane.apply(event("site_created"), renamed(name="First"))  # with the schemas of both
        assert lane.watched.transactions == 1
        lane.watched.transactions = 0
        lane.watched.statements.clear()
        yield lane


@pytest.fixture
async def own_connection(database: Settings) -> AsyncIterator[Any]:
    """Somebody else's connection."""
    connection = await connect(database.database_config.primary)
    yield connection
    await connection.close()


async def name_of(lane: Lane) -> tuple[str, int, int]:
    """The site's name and version, and the log seq of the last event in it."""
    row = await lane.owner.fetchrow("SELECT site_name, version, log_seq FROM customer_sites WHERE site_id = 'site-1'")
    return tuple(row)


async def test_few_events_take_a_statement_to_load_and_one_to_write(lane: Lane) -> None:
    conflicting = event(
        "site_updated", changed_fields=["name"], old_values={"name": "Never"}, new_values={"name": "Quay"}
    )
    outcome = await lane.apply(renamed(name="Pier"), conflicting)
    assert (outcome.verdict, outcome.events, outcome.conflicts) == ("applied", 2, 1)
    assert (lane.watched.transactions, len(lane.watched.statements)) == (0, 2)
    assert await name_of(lane) == ("Quay", 4, 4)
    position = await lane.partition.position()
    assert (position.next_offset, position.log_seq) == (4, 4)
    assert [entry[:2] for entry in await lane.partition.log()] == [(1, 0), (2, 1), (3, 2), (4, 3)]
    assert await lane.owner.fetchval("SELECT count(*) FROM sitelog.conflict WHERE log_seq = 4") == 1


async def test_many_events_go_by_copy(lane: Lane) -> None:
    await lane.apply(*(renamed() for _ in range(AT_ONCE_RECORDS_MAX)))
    assert lane.watched.transactions == 1
    await lane.apply(renamed())
    assert lane.watched.transactions == 1


async def test_large_events_go_by_copy(lane: Lane) -> None:
    await lane.apply(*(renamed(name="x" * (AT_ONCE_BYTES_MAX // 4)) for _ in range(4)))
    assert lane.watched.transactions == 1
    await lane.apply(*(renamed(name="x" * (AT_ONCE_BYTES_MAX // 8)) for _ in range(4)))
    assert lane.watched.transactions == 1


async def test_a_partition_that_is_claimed_meanwhile_is_fenced_and_nothing_written(lane: Lane) -> None:
    lane.watched.before_write = lane.partition.claim
    outcome = await lane.apply(renamed(name="Pier"))
    assert outcome.verdict == "fenced"
    assert await name_of(lane) == ("First", 2, 2)
    assert len(await lane.partition.log()) == 2


async def test_the_others_of_its_statement_are_written_all_the_same(lane: Lane) -> None:
    other = Partition(lane.partition.connection, number=1)
    other_epoch = await other.claim()
    first = other.part(other.append(event("site_created", "site-2")), other_epoch)
    await lane.partition.projector.apply(lane.watched, [first])
    lane.watched.before_write = lane.partition.claim
    second = other.part(other.append(renamed("site-2", "Pier")), other_epoch)
    outcomes = await lane.partition.projector.apply(lane.watched, [lane.slice(renamed(name="Pier")), second])
    assert [outcome.verdict for outcome in outcomes] == ["fenced", "applied"]
    assert (await lane.partition.version("site-1"), await lane.partition.version("site-2")) == (2, 2)


async def test_rows_that_somebody_else_has_changed_since_they_were_loaded_are_loaded_again(lane: Lane) -> None:
    """As a replay does that puts other tables in place, whose rows need not be those that were loaded."""

    async def repair() -> None:
        await lane.owner.execute("UPDATE customer_sites_v1 SET city = 'Repaired' WHERE site_id = 'site-1'")
        await lane.owner.execute(TOUCH)

    lane.watched.before_write = repair
    outcome = await lane.apply(renamed(name="Pier"))
    assert (outcome.verdict, lane.watched.transactions) == ("applied", 1)
    assert await name_of(lane) == ("Pier", 3, 3)
    assert await lane.owner.fetchval("SELECT city FROM customer_sites WHERE site_id = 'site-1'") == "Repaired"
    await lane.apply(renamed(name="Quay"))
    assert lane.watched.transactions == 1


async def test_what_was_written_already_is_not_written_again(lane: Lane) -> None:
    """The answer to the statement was lost: the same slice comes once more."""
    part = lane.slice(renamed(name="Pier"))
    (first,) = await lane.partition.projector.apply(lane.watched, [part])
    (again,) = await lane.partition.projector.apply(lane.watched, [part])
    assert (first.verdict, again.verdict) == ("applied", "applied_before")
    assert await name_of(lane) == ("Pier", 3, 3)


async def test_an_event_that_is_in_the_log_already_fails_it_as_a_whole(lane: Lane) -> None:
    twice = renamed(name="Pier")
    await lane.apply(twice)
    with pytest.raises(asyncpg.UniqueViolationError) as raised:
        await lane.apply(renamed(name="Quay"), twice)
    assert seen_before(raised.value)
    assert await name_of(lane) == ("Pier", 3, 3)
    assert (await lane.partition.position()).next_offset == 3


@pytest.mark.parametrize("aside", [renamed("site-2"), ("site-2", b"{}")], ids=["waits", "is unreadable"])
async def test_what_is_put_aside_and_all_while_it_is_there_takes_a_transaction(
    lane: Lane, aside: Event | tuple[str, bytes]
) -> None:
    part = lane.partition.part(lane.partition.append(aside), lane.epoch)
    (outcome,) = await lane.partition.projector.apply(lane.watched, [part])
    assert (outcome.waiting + outcome.parked, lane.watched.transactions) == (1, 1)
    await lane.apply(renamed(name="Pier"))
    assert lane.watched.transactions == 2
    assert await name_of(lane) == ("Pier", 3, 3)


async def test_a_history_whose_rows_are_removed_takes_a_transaction(lane: Lane) -> None:
    for year, transactions in (("2030", 1), ("2031", 1), ("2020", 2)):  # the first one with a new schema, too
        await lane.apply(event("site_assigned_to_territory", effective_at=f"{year}-01-01T00:00:00Z"))
        assert lane.watched.transactions == transactions
    assert await lane.owner.fetchval("SELECT count(*) FROM territory_assignments WHERE site_id = 'site-1'") == 1


async def test_where_a_database_takes_over_that_lacks_the_last_transactions_their_schemas_are_stored_again(
    lane: Lane, database: Settings
) -> None:
    before = await lane.partition.position()
    await lane.apply(assigned := event("site_assigned_to_territory"))
    owner = await connect(owner_of(database))
    await owner.execute("ALTER TABLE sitelog.event_log DISABLE TRIGGER USER")
    await owner.execute("DELETE FROM sitelog.event_log WHERE log_seq > $1", before.log_seq)
    await owner.execute("ALTER TABLE sitelog.event_log ENABLE TRIGGER USER")
    await owner.execute("DELETE FROM sitelog.avro_schema WHERE name = 'site_assigned_to_territory'")
    await owner.execute(
        "UPDATE sitelog.consumer_position SET next_offset = $1, log_seq = $2", before.next_offset, before.log_seq
    )

    part = lane.partition.part(lane.partition.append(renamed(name="Pier")), lane.epoch)
    (outcome,) = await lane.partition.projector.apply(lane.watched, [part])
    assert outcome.verdict == "lost"
    await lane.partition.apply(before.next_offset)

    assert [event_id for *_, event_id in await lane.partition.log()][-2] == assigned.event_id
    stored = "SELECT count(*) FROM sitelog.avro_schema WHERE name = 'site_assigned_to_territory'"
    assert await owner.fetchval(stored) == 1
    await owner.close()
