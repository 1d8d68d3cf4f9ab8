"""A creation that comes late sets free what waits for it: all, in order, and never more at once than a worker takes."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise
from typing import Any, cast

import pytest

from sitelog.agents._pipeline import Pipeline
from sitelog.agents._progress import Progress
from sitelog.deploy.postgres import connect_as_superuser
from sitelog.projections._aside import TooMuchAside
from sitelog.projections._intake import Aside
from sitelog.projections._parked import Limits
from sitelog.projections._slice import Outcome, Slice
from sitelog.schemas import load, newest
from sitelog.streams._batch import Claim, RecordBatch
from sitelog.streams._event import Event
from sitelog.streams.codec import Codec
from sitelog.streams.errors import Halt, SchemasAway
from sitelog.streams.settings import Settings
from tests.conftest import Services
from tests.partition import NOON_MS, Partition, event, open_partition, renamed
from tests.pipelines import pipeline_around
from tests.registries import FilledRegistry

pytestmark = pytest.mark.services

AT_ONCE = 3
BYTES = 2_621_440
LATER = 7

TRANSACTIONS = "SELECT count(*) FROM sitelog.event_log GROUP BY ingest_time ORDER BY min(log_seq)"


@pytest.fixture
async def partition(database: Settings) -> AsyncIterator[Partition]:
    async with open_partition(database) as partition:
        partition.take_aside(Limits(AT_ONCE, BYTES))
        yield partition


class Heard:
    """What the pipeline tells the transport, in its order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []

    def applied(self, batch: RecordBatch) -> None:
        self.told.append(("applied", batch.end))

    def fence(self, claim: Claim) -> None:
        self.told.append(("fenced", claim))

    def reclaim(self, claim: Claim) -> None:
        self.told.append(("reclaimed", claim))

    def halt(self, halt: Halt) -> None:
        self.told.append(("halted", str(halt)))


class OneConnection:
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def acquire(self, timeout: float) -> AsyncIterator[Any]:  # noqa: ASYNC109 - asyncpg's own
        async with asyncio.timeout(timeout), self._lock:
            yield self._connection


def pipeline_of(partition: Partition, progress: Progress) -> tuple[Pipeline, Heard]:
    heard = Heard()
    pipeline = pipeline_around(
        partition.projector,
        partition.codec,
        pool=OneConnection(partition.connection),
        consumer=heard,
        progress=progress,
        shared_records_max=100,
        shared_bytes_max=BYTES,
    )
    return pipeline, heard


async def batch(partition: Partition, *events: Event) -> RecordBatch:
    """Append events, as a poll brings them under a claim of their own."""
    start = partition.append(*events)
    claim = Claim(partition.topic, partition.number, await partition.claim(), start, start)
    records = cast("Any", partition.records[start:])
    return RecordBatch(claim, start, start + len(records), records, start + len(records))


async def piped(partition: Partition, *batches: RecordBatch) -> list[tuple[str, object]]:
    """Put batches through the pipeline, and return what it tells."""
    pipeline, heard = pipeline_of(partition, Progress())
    for one in batches:
        await pipeline.submit(one)
    assert await pipeline.wait_idle(30)
    return heard.told


async def refuse(services: Services, database: Settings) -> None:
    """Let Postgres refuse a site of so many places, whatever its name becomes later in a batch."""
    superuser = await connect_as_superuser(services.state, database.database_config.primary.database)
    try:
        await superuser.execute("ALTER TABLE customer_sites_v1 ADD CHECK (parking_capacity <> 13)")
    finally:
        await superuser.close()


def refused() -> Event:
    return event(
        "site_updated", changed_fields=["parking_capacity"], old_values=None, new_values={"parking_capacity": 13}
    )


@contextmanager
def interrupted(partition: Partition, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End in this block, after its first transaction, what moves an entity on."""
    loads = [partition.projector.aside.of_entity]

    async def once(*args: Any) -> Aside:
        return await loads.pop()(*args)

    with monkeypatch.context() as patched:
        patched.setattr(partition.projector.aside, "of_entity", once)
        with pytest.raises(IndexError):
            yield


async def open_events(partition: Partition) -> list[tuple[int, str, str]]:
    return [row for row in await partition.parked() if row[1] not in {"applied", "discarded"}]


async def rounds(partition: Partition, part: Slice) -> list[Outcome]:
    """Apply one record until it is finished, as the pipeline does."""
    outcomes: list[Outcome] = []
    while not outcomes or outcomes[-1].unfinished:
        assert len(outcomes) < 100
        outcomes += await partition.projector.apply(partition.connection, [part])
    return outcomes


def ids(*events: Event) -> list[str]:
    return [one.event_id for one in events]


async def logged(partition: Partition) -> list[str]:
    rows = await partition.log()
    assert [seq for seq, *_ in rows] == list(range(1, len(rows) + 1))
    return [event_id for *_, event_id in rows]


async def logged_of(partition: Partition, entity_id: str) -> list[str]:
    return [event_id for _, _, entity, event_id in await partition.log() if entity == entity_id]


async def sizes(partition: Partition) -> list[int]:
    """How many events each transaction has logged."""
    return [row[0] for row in await partition.connection.fetch(TRANSACTIONS)]


async def waiting(partition: Partition, events: Sequence[Event]) -> None:
    """Let events come, some at a time, that nothing can be done with yet."""
    for one in events:
        outcome = await partition.feed(one)
        assert (outcome.events, outcome.waiting) == (0, 1)


async def test_those_who_waited_are_applied_in_transactions_of_a_bounded_size(partition: Partition) -> None:
    early = [renamed(name=f"Name {n}") for n in range(10)]
    await waiting(partition, early)
    part = await partition.claimed(partition.append(created := event("site_created")))

    outcomes = await rounds(partition, part)

    assert [outcome.events for outcome in outcomes] == await sizes(partition) == [4, 3, 3, 1]
    assert await logged(partition) == ids(created, *early)
    assert await partition.version("site-1") == 11
    assert (await partition.position())[0::4] == (11, 0)


async def test_bytes_bound_a_transaction_as_well_and_one_event_always_goes(partition: Partition) -> None:
    early = [renamed(name=f"Name {n}") for n in range(4)]
    await waiting(partition, early)
    partition.take_aside(Limits(100, 1))
    part = await partition.claimed(partition.append(created := event("site_created")))
    assert [outcome.events for outcome in await rounds(partition, part)] == [2, 1, 1, 1]
    assert await logged(partition) == ids(created, *early)


async def test_the_place_of_the_creation_is_taken_last(partition: Partition) -> None:
    await waiting(partition, [renamed() for _ in range(8)])
    before = await partition.position()
    part = await partition.claimed(partition.append(event("site_created")))
    positions = [before]
    unfinished = True
    while unfinished:
        (outcome,) = await partition.projector.apply(partition.connection, [part])
        unfinished = outcome.unfinished
        positions.append(await partition.position())
    assert [position.next_offset for position in positions] == [8, 8, 8, 9]
    assert [position.anchor == before.anchor for position in positions] == [True, True, True, False]
    assert all(one.log_seq < other.log_seq for one, other in pairwise(positions))


async def test_who_dies_in_between_is_followed_by_one_who_goes_on(partition: Partition) -> None:
    early = [renamed(name=f"Name {n}") for n in range(8)]
    await waiting(partition, early)
    start = partition.append(created := event("site_created"))
    (outcome,) = await partition.projector.apply(partition.connection, [await partition.claimed(start)])
    assert outcome.unfinished

    partition.take_aside(Limits(AT_ONCE, BYTES))  # another process
    late = renamed(name="Late")
    partition.append(late)
    await rounds(partition, await partition.claimed(start, start + 1))
    await partition.apply(start + 1)

    assert await logged(partition) == ids(created, *early, late)
    assert await partition.version("site-1") == 10


async def test_a_batch_that_would_set_too_much_free_is_refused_whole(partition: Partition) -> None:
    await waiting(partition, [renamed() for _ in range(AT_ONCE + 1)])
    before = await partition.position()
    start = partition.append(event("site_created"), event("site_created", "site-2"))
    part = await partition.claimed(start)
    with pytest.raises(TooMuchAside):
        await partition.projector.apply(partition.connection, [part])
    assert await partition.position() == before._replace(epoch=part.epoch)
    assert await partition.log() == []


async def test_many_entities_that_waited_a_little_are_too_much_together_too(partition: Partition) -> None:
    sites = [f"site-{n}" for n in range(AT_ONCE + 1)]
    for site in sites:
        await partition.feed(renamed(site))
    start = partition.append(*(event("site_created", site) for site in sites))
    with pytest.raises(TooMuchAside):
        await partition.apply(start)
    await partition.apply(start, start + AT_ONCE)
    await partition.apply(start + AT_ONCE)
    assert [await partition.version(site) for site in sites] == [2] * len(sites)


async def test_one_who_stops_in_between_stops_there_for_a_person(partition: Partition) -> None:
    early = [renamed(name=f"Name {n}") for n in range(8)]
    await waiting(partition, early[:5])
    await partition.feed(("site-1", b"no event"))
    await waiting(partition, early[5:])
    await rounds(partition, await partition.claimed(partition.append(created := event("site_created"))))
    assert await logged(partition) == ids(created, *early[:5])
    assert [(offset, status) for offset, status, _ in await partition.parked() if status != "applied"] == [
        (5, "parked"),
        (6, "behind"),
        (7, "behind"),
        (8, "behind"),
    ]
    assert (await partition.position())[0::4] == (10, 1)


async def test_a_creation_too_far_back_for_its_turn_is_found(partition: Partition) -> None:
    early = [event("contract_updated", contract_id="contract-2") for _ in range(8)]
    await waiting(partition, early)
    await waiting(partition, [contract := event("contract_created", contract_id="contract-2")])
    await waiting(partition, [last := renamed()])
    await rounds(partition, await partition.claimed(partition.append(created := event("site_created"))))
    assert await logged(partition) == ids(created, contract, *early, last)
    assert (await partition.position()).parked_entities == 0


async def test_who_waits_for_another_creation_still_goes_on_waiting(partition: Partition) -> None:
    early = [event("contract_updated", contract_id="contract-2") for _ in range(8)]
    await waiting(partition, early)
    start = partition.append(created := event("site_created"))
    outcomes = await rounds(partition, await partition.claimed(start))
    assert [outcome.events for outcome in outcomes] == [1]
    await rounds(
        partition,
        await partition.claimed(partition.append(contract := event("contract_created", contract_id="contract-2"))),
    )
    assert await logged(partition) == ids(created, contract, *early)


async def test_an_interrupted_retry_is_ended_by_the_next_event(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = partition.codec.decode(partition.codec.encode(created := event("site_created"))).body
    behind = [renamed(name=f"Name {n}") for n in range(7)]
    await partition.feed(("site-1", b"\0" + LATER.to_bytes(4) + body), *behind)
    partition.registry.schemas[LATER] = newest(load())["site_created"].text
    partition.registry.asked.clear()
    with interrupted(partition, monkeypatch):
        await partition.retry("site-1")

    assert await logged(partition) == ids(created, *behind[:2])
    await rounds(partition, await partition.claimed(partition.append(late := renamed(name="Late"))))
    assert await logged(partition) == ids(created, *behind, late)


async def test_nobody_asks_the_registry_for_what_waits_while_rows_are_locked(partition: Partition) -> None:
    partition.registry.schemas[LATER] = newest(load())["site_updated"].text
    body = partition.codec.decode(partition.codec.encode(early := renamed())).body
    await partition.codec.prepare([framed := b"\0" + LATER.to_bytes(4) + body])
    assert (await partition.feed(("site-1", framed))).waiting == 1
    partition.codec = Codec(registry := FilledRegistry(partition.registry.schemas))  # as after a restart
    partition.take_aside(Limits(AT_ONCE, BYTES))
    part = await partition.claimed(partition.append(created := event("site_created")))
    with pytest.raises(SchemasAway) as raised:
        await partition.projector.apply(partition.connection, [part])
    assert (raised.value.schema_ids, registry.asks) == ({LATER}, 0)
    await partition.codec.prepare_ids(raised.value.schema_ids)
    await rounds(partition, part)
    assert await logged(partition) == ids(created, early)


async def test_a_fenced_worker_releases_nothing(partition: Partition) -> None:
    await waiting(partition, [renamed() for _ in range(8)])
    start = partition.append(event("site_created"))
    part = await partition.claimed(start)
    (outcome,) = await partition.projector.apply(partition.connection, [part])
    assert outcome.unfinished
    log = await logged(partition)
    await partition.claim()
    (outcome,) = await partition.projector.apply(partition.connection, [part])
    assert (outcome.verdict, outcome.events) == ("fenced", 0)
    assert await logged(partition) == log


async def test_a_shared_transaction_leaves_what_takes_several_to_one_of_its_own(partition: Partition) -> None:
    second, third = Partition(partition.connection, 1), Partition(partition.connection, 2)
    await waiting(partition, early := [renamed(name=f"Name {n}") for n in range(8)])
    first_one = await batch(third, event("site_created", "site-3"))  # the others gather while it is applied
    together = [await batch(partition, created := event("site_created"))]
    together.append(await batch(second, event("site_created", "site-2")))
    told = await piped(partition, first_one, *together)
    assert sorted(told) == [("applied", 1), ("applied", 1), ("applied", 9)]
    assert await logged(partition) == ids(created, *early)


async def test_what_several_partitions_set_free_is_bounded_together(partition: Partition) -> None:
    second = Partition(partition.connection, 1)
    second.take_aside(Limits(AT_ONCE, BYTES))
    parts = []
    for one, site in ((partition, "site-1"), (second, "site-2")):
        await waiting(one, [renamed(site) for _ in range(2)])
        parts.append(await one.claimed(one.append(event("site_created", site))))
    with pytest.raises(TooMuchAside):
        await partition.projector.apply(partition.connection, parts)
    partition.take_aside(Limits(4, BYTES))
    outcomes = await partition.projector.apply(partition.connection, parts)
    assert [(outcome.events, outcome.unfinished) for outcome in outcomes] == [(3, False), (3, False)]


@pytest.mark.parametrize("refused_at", [0, 1, 5, 11])
async def test_the_one_that_postgres_refuses_is_parked_and_stops_only_its_entity(
    partition: Partition, database: Settings, services: Services, refused_at: int
) -> None:
    await refuse(services, database)
    early = [refused() if n == refused_at else renamed(name=f"Name {n}") for n in range(12)]
    await waiting(partition, early)
    late = await batch(partition, created := event("site_created"), event("site_created", "s-2"))
    told = await piped(partition, late)
    assert told == [("applied", 14)]
    assert await logged_of(partition, "site-1") == ids(created, *early[:refused_at])
    assert (await open_events(partition))[0] == (refused_at, "parked", "refused_by_database")
    assert {status for _, status, _ in (await open_events(partition))[1:]} <= {"behind"}
    assert await partition.version("s-2") == 1


async def test_a_creation_that_postgres_refuses_is_parked_and_those_who_wait_for_it_wait(
    partition: Partition, database: Settings, services: Services
) -> None:
    await refuse(services, database)
    await waiting(partition, [renamed(name=f"Name {n}") for n in range(8)])
    created = event("site_created", site_data={"name": "Late", "parking_capacity": 13})
    assert await piped(partition, await batch(partition, created)) == [("applied", 9)]
    assert await logged(partition) == []
    states = await open_events(partition)
    assert (states[0][1], states[-1][1:]) == ("waiting", ("parked", "refused_by_database"))


async def test_an_event_after_an_interrupted_retry_isnt_blamed_for_what_is_before_it(
    partition: Partition, database: Settings, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    await refuse(services, database)
    behind = [*(renamed(name=name) for name in "ABCDE"), refused(), renamed(name="F")]
    await partition.feed(created := event("site_created"), ("site-1", b"no event"), *behind)
    parked_id = "SELECT parked_id FROM sitelog.parked_event WHERE kafka_offset = 1"
    with interrupted(partition, monkeypatch):
        await partition.discard(await partition.connection.fetchval(parked_id))

    later = await batch(partition, renamed(name="Later"), event("site_created", "site-2"))
    assert await piped(partition, later) == [("applied", 11)]
    assert await logged_of(partition, "site-1") == ids(created, *behind[:5])
    assert await open_events(partition) == [
        (7, "parked", "refused_by_database"),
        (8, "behind", "behind"),
        (9, "behind", "behind"),
    ]


async def test_a_long_release_isnt_taken_for_a_partition_that_is_stuck(partition: Partition) -> None:
    await waiting(partition, [renamed(name=f"Name {n}") for n in range(12)])
    late = await batch(partition, event("site_created"))
    now = 0.0
    progress = Progress(lambda: now)
    pipeline, heard = pipeline_of(partition, progress)
    progress.seen(late.topic, late.partition, late.start, late.end)
    apply, stuck = partition.projector.apply, []

    async def slowly(*args: Any, **options: Any) -> list[Outcome]:
        nonlocal now
        outcomes = await apply(*args, **options)
        now += 25
        stuck.extend(progress.stuck(60))
        return outcomes

    partition.projector.apply = slowly  # type: ignore[method-assign]
    await pipeline.submit(late)
    assert await pipeline.wait_idle(30)
    assert (heard.told, stuck) == ([("applied", 13)], [])


async def test_a_topic_that_was_made_again_sets_nobody_free(partition: Partition) -> None:
    await partition.feed(*(event("site_created", site) for site in ("s-2", "s-3", "site-1")), ("site-1", b"no event"))
    await partition.connection.execute("UPDATE sitelog.consumer_position SET next_offset = 0, anchor = NULL")
    partition.records.clear()
    for name in ("One", "Two", "Three"):
        start = partition.append(renamed(name=name))
        partition.records[start] = partition.records[start]._replace(timestamp=NOON_MS + 1_000_000 + start)
        await partition.apply(start)
    assert await partition.version("site-1") == 1
    assert (await partition.position()).parked_entities == 1


async def test_creations_too_far_back_are_found_page_by_page(partition: Partition) -> None:
    await waiting(partition, [event("contract_updated", contract_id="contract-2") for _ in range(4)])
    await waiting(partition, [event("contract_created", contract_id=f"contract-{n}") for n in range(3, 9)])
    await waiting(partition, [event("contract_created", contract_id="contract-2"), renamed()])
    assert await piped(partition, await batch(partition, event("site_created"))) == [("applied", 13)]
    assert len(await logged(partition)) == 13
    assert (await partition.position()).parked_entities == 0


async def test_an_event_in_another_partition_is_put_aside_and_those_at_home_go_on(partition: Partition) -> None:
    other = Partition(partition.connection, 1)
    await other.feed(*(event("site_created", f"site-{n}") for n in range(20, 40)))  # its log is far ahead
    await partition.feed(event("site_created"))
    assert await piped(other, await batch(other, renamed(name="From elsewhere"))) == [("applied", 21)]
    assert [(status, reason) for _, status, reason in await partition.parked()] == [("parked", "wrong_partition")]
    await partition.feed(renamed(name="At home"))
    assert await partition.version("site-1") == 2
    assert len(await other.log()) == 20
