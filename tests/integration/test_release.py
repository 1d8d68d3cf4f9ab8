"""A creation that comes late sets free what waits for it: all, in order, and never more at once than a worker takes."""

from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

from sitelog.projections._aside import TooMuchAside
from sitelog.projections._intake import Aside
from sitelog.projections._parked import Limits
from sitelog.projections._transaction import Outcome, Slice
from sitelog.schemas import load, newest
from sitelog.streams._event import Event
from sitelog.streams.settings import Settings
from tests.partition import Partition, event, open_partition, renamed

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
    loads = [partition.projector.aside.of_entity]

    async def once(*args: Any) -> Aside:
        return await loads.pop()(*args)

    with monkeypatch.context() as patched:
        patched.setattr(partition.projector.aside, "of_entity", once)
        with pytest.raises(IndexError):
            await partition.retry("site-1")

    assert await logged(partition) == ids(created, *behind[:2])
    await rounds(partition, await partition.claimed(partition.append(late := renamed(name="Late"))))
    assert await logged(partition) == ids(created, *behind, late)


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
