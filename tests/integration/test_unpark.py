"""Stopped entities in motion again: every event once, in the entity's order, and nothing else touched."""

import asyncio
import sys
from collections.abc import AsyncIterator
from functools import partial
from itertools import cycle
from pathlib import Path

import asyncpg
import pytest

from sitelog.deploy.postgres import connect_as_superuser
from sitelog.projections._database import connect
from sitelog.projections._look_positions import stopped_entities
from sitelog.projections._parked import Limits
from sitelog.projections._positions import MOVE, move
from sitelog.schemas import load, newest
from sitelog.streams._event import Event
from sitelog.streams.errors import Halt
from sitelog.streams.settings import Settings
from tests.commands import config_file
from tests.conftest import Services
from tests.lives import Lives
from tests.partition import Partition, event, open_partition, renamed
from tests.rig import Rig, open_rig
from tests.until import until

pytestmark = pytest.mark.services

UNKNOWN_ID = 7
HELD_SITES = 20
LOAD = 200

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
async def partition(database: Settings) -> AsyncIterator[Partition]:
    async with open_partition(database) as partition:
        yield partition


@pytest.fixture
async def rig(services: Services, database_template: str) -> AsyncIterator[Rig]:
    async with open_rig(services, database_template) as rig:
        yield rig


def framed(partition: Partition, of: Event) -> tuple[str, bytes]:
    """The event with a schema id that the registry doesn't know yet."""
    body = partition.codec.decode(partition.codec.encode(of)).body
    return of.entity_id, b"\0" + UNKNOWN_ID.to_bytes(4) + body


def publish(partition: Partition, event_type: str) -> None:
    """Give the registry the schema that was missing; it is asked again."""
    partition.registry.schemas[UNKNOWN_ID] = newest(load())[event_type].text
    partition.registry.asked.clear()


async def test_what_was_parked_is_applied_in_its_order_once_its_reason_is_gone(partition: Partition) -> None:
    created, first, second = event("site_created"), renamed(name="One"), renamed(name="Two")
    await partition.feed(framed(partition, created), first, second, event("site_created", "site-2"))
    before = await partition.position()
    assert before.parked_entities == 1

    publish(partition, "site_created")
    moved = await partition.retry("site-1")

    assert (moved.applied, moved.left, moved.culprit) == (3, 0, None)
    ids = [event_id for _, _, entity, event_id in await partition.log() if entity == "site-1"]
    assert ids == [created.event_id, first.event_id, second.event_id]
    assert [seq for seq, *_ in await partition.log()] == [1, 2, 3, 4]
    assert await partition.version("site-1") == 3
    assert {status for _, status, _ in await partition.parked()} == {"applied"}


async def test_the_place_in_the_topic_stays_and_so_does_the_claim(partition: Partition) -> None:
    await partition.feed(framed(partition, event("site_created")), renamed())
    before = await partition.position()
    publish(partition, "site_created")
    await partition.retry("site-1")
    assert await partition.position() == before._replace(log_seq=2, parked_entities=0)


async def test_how_many_entities_are_stopped_is_known_by_topic_until_they_go_on(partition: Partition) -> None:
    await partition.feed(framed(partition, event("site_created")), renamed(), renamed(site_id="site-2"))
    none = {"customer-sites-events": 0, "territory-events": 0}
    assert await stopped_entities(partition.connection, "projector") == none | {"customer-sites-events": 2}
    assert await stopped_entities(partition.connection, "billing") == none
    publish(partition, "site_created")
    await partition.retry("site-1")
    assert await stopped_entities(partition.connection, "projector") == none | {"customer-sites-events": 1}


async def test_an_event_that_comes_after_a_retry_is_applied_at_once(partition: Partition) -> None:
    await partition.feed(framed(partition, event("site_created")), renamed())
    publish(partition, "site_created")
    await partition.retry("site-1")
    outcome = await partition.feed(renamed(name="Later"))
    assert (outcome.verdict, outcome.events, outcome.parked) == ("applied", 1, 0)
    assert await partition.version("site-1") == 3


async def test_what_still_cant_be_applied_stays_with_the_reason_of_today(partition: Partition) -> None:
    key, value = framed(partition, event("site_created"))
    await partition.feed((key, value[:-3]), renamed())
    assert await partition.parked() == [(0, "parked", "unknown_schema"), (1, "behind", "behind")]

    publish(partition, "site_created")
    moved = await partition.retry("site-1")

    assert (moved.applied, moved.left) == (0, 2)
    assert moved.culprit is not None
    assert moved.culprit.reason == "truncated"
    assert await partition.parked() == [(0, "parked", "truncated"), (1, "behind", "behind")]
    assert (await partition.position()).parked_entities == 1


async def test_a_retry_goes_as_far_as_it_can(partition: Partition) -> None:
    created, after = event("site_created"), renamed()
    await partition.feed(framed(partition, created), after, ("site-1", b"no event"), renamed())
    publish(partition, "site_created")
    moved = await partition.retry("site-1")
    assert (moved.applied, moved.left) == (2, 2)
    assert [event_id for *_, event_id in await partition.log()] == [created.event_id, after.event_id]
    statuses = [(offset, status) for offset, status, _ in await partition.parked()]
    assert statuses == [(0, "applied"), (1, "applied"), (2, "parked"), (3, "behind")]


async def test_a_second_retry_finds_nothing_to_do(partition: Partition) -> None:
    await partition.feed(framed(partition, event("site_created")), renamed())
    publish(partition, "site_created")
    await partition.retry("site-1")
    assert [one async for one in partition.unpark.stopped(partition.connection, "site-1")] == []
    assert len(await partition.log()) == 2


async def test_two_retries_at_once_apply_everything_once(partition: Partition, database: Settings) -> None:
    await partition.feed(framed(partition, event("site_created")), *(renamed() for _ in range(50)))
    publish(partition, "site_created")
    (stopped,) = [one async for one in partition.unpark.stopped(partition.connection, "site-1")]
    other = await connect(database.database_config.primary)
    try:
        one, two = await asyncio.gather(
            partition.unpark.retry(partition.connection, stopped), partition.unpark.retry(other, stopped)
        )
    finally:
        await other.close()
    assert sorted((one.applied, two.applied)) == [0, 51]
    assert [seq for seq, *_ in await partition.log()] == list(range(1, 52))


async def test_many_events_are_applied_in_transactions_of_a_bounded_size(partition: Partition) -> None:
    partition.take_aside(Limits(3, 2_621_440))
    events = [event("site_created"), *(renamed(name=f"Name {n}") for n in range(9))]
    await partition.feed(framed(partition, events[0]), *events[1:], ("site-1", b"no event"), renamed())
    publish(partition, "site_created")
    moved = await partition.retry("site-1")
    assert (moved.applied, moved.left) == (10, 2)
    assert [event_id for *_, event_id in await partition.log()] == [one.event_id for one in events]
    ingested = "SELECT ingest_time, count(*) FROM sitelog.event_log GROUP BY ingest_time ORDER BY ingest_time"
    assert [row["count"] for row in await partition.connection.fetch(ingested)] == [3, 3, 3, 1]


async def test_a_creation_far_behind_those_that_wait_is_found(partition: Partition) -> None:
    partition.take_aside(Limits(3, 2_621_440))
    site, created = event("site_created"), event("contract_created", contract_id="contract-2")
    waiting = [event("contract_updated", contract_id="contract-2") for _ in range(20)]
    await partition.feed(framed(partition, site), *waiting[:1])
    await partition.feed(*waiting[1:], created)
    publish(partition, "site_created")
    moved = await partition.retry("site-1")
    assert (moved.applied, moved.left) == (22, 0)
    ids = [event_id for *_, event_id in await partition.log()]
    assert ids == [site.event_id, created.event_id, *(one.event_id for one in waiting)]


async def test_an_event_parked_twice_is_applied_once(partition: Partition) -> None:
    repeated = renamed()
    await partition.feed(framed(partition, event("site_created")), repeated, repeated)
    publish(partition, "site_created")
    moved = await partition.retry("site-1")
    assert (moved.applied, moved.repeated, moved.left) == (2, 1, 0)
    assert [status for _, status, _ in await partition.parked()] == ["applied", "applied", "discarded"]
    assert await partition.version("site-1") == 2


async def test_an_event_that_is_in_the_log_by_another_way_isnt_applied_again(partition: Partition) -> None:
    created, after = event("site_created"), renamed()
    await partition.feed(created, ("site-1", b"no event"), after)
    await partition.connection.execute(
        "UPDATE sitelog.parked_event SET value = $1 WHERE kafka_offset = 1", partition.codec.encode(created)
    )
    async with asyncio.timeout(30):
        moved = await partition.retry("site-1")
    assert (moved.applied, moved.repeated, moved.left) == (1, 1, 0)
    assert [event_id for *_, event_id in await partition.log()] == [created.event_id, after.event_id]


async def test_a_creation_behind_an_update_frees_both(partition: Partition) -> None:
    created, early = event("site_created"), renamed()
    await partition.feed(early, framed(partition, created))
    assert [status for _, status, _ in await partition.parked()] == ["waiting", "parked"]
    publish(partition, "site_created")
    moved = await partition.retry("site-1")
    assert (moved.applied, moved.left) == (2, 0)
    assert [event_id for *_, event_id in await partition.log()] == [created.event_id, early.event_id]


async def test_what_postgres_refuses_stops_the_entity_there_and_keeps_what_came_before(
    partition: Partition, database: Settings, services: Services
) -> None:
    superuser = await connect_as_superuser(services.state, database.database_config.primary.database)
    try:
        await superuser.execute("ALTER TABLE customer_sites_v1 ADD CHECK (site_name <> 'Refused')")
    finally:
        await superuser.close()
    names = [f"Name {n}" for n in range(13)] + ["Refused"] * 7
    await partition.feed(framed(partition, event("site_created")), *(renamed(name=name) for name in names))
    publish(partition, "site_created")

    moved = await partition.retry("site-1")

    assert (moved.applied, moved.left) == (14, 7)
    assert moved.culprit is not None
    assert (moved.culprit.item.offset, moved.culprit.reason) == (14, "refused_by_database")
    assert [seq for seq, *_ in await partition.log()] == list(range(1, 15))
    assert await partition.version("site-1") == 14


async def test_a_retry_that_dies_leaves_nothing_of_itself(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    await partition.feed(framed(partition, event("site_created")), renamed())
    publish(partition, "site_created")
    before = await partition.position()
    with monkeypatch.context() as patched:
        failing = MOVE.replace("SET next_offset = m.next_offset", "SET next_offset = m.next_offset / 0")
        patched.setattr("sitelog.projections._positions.move", partial(move, sql=failing))
        with pytest.raises(asyncpg.DivisionByZeroError):
            await partition.retry("site-1")
    assert await partition.position() == before
    assert await partition.log() == []
    assert (await partition.retry("site-1")).applied == 2


async def test_a_retry_by_a_release_that_keeps_other_read_models_is_refused(partition: Partition) -> None:
    await partition.feed(framed(partition, event("site_created")))
    publish(partition, "site_created")
    await partition.connection.execute("UPDATE sitelog.consumer_position SET read_models = read_models || '{new_v1}'")
    with pytest.raises(Halt, match="new_v1"):
        await partition.retry("site-1")
    assert await partition.log() == []


async def test_discarding_the_culprit_lets_those_behind_it_go_on(partition: Partition) -> None:
    created, after = event("site_created"), renamed()
    await partition.feed(created, ("site-1", b"no event"), after)
    moved = await partition.discard(await parked_id(partition, offset=1))
    assert moved is not None
    assert (moved.applied, moved.left) == (1, 0)
    assert [event_id for *_, event_id in await partition.log()] == [created.event_id, after.event_id]
    row = await partition.connection.fetchrow(
        "SELECT status, closed_by, close_reason, value FROM sitelog.parked_event WHERE kafka_offset = 1"
    )
    assert tuple(row) == ("discarded", "an operator", "it is no event", b"no event")
    assert (await partition.position()).parked_entities == 0


async def test_discarding_a_creation_lets_those_behind_it_wait_for_another_one(partition: Partition) -> None:
    await partition.feed(("site-1", b"no event"), renamed())
    moved = await partition.discard(await parked_id(partition, offset=0))
    assert moved is not None
    assert moved.culprit is not None
    assert (moved.left, moved.culprit.status) == (1, "waiting")
    await partition.feed(event("site_created"))
    assert await partition.version("site-1") == 2


async def test_what_was_discarded_cant_be_discarded_again(partition: Partition) -> None:
    await partition.feed(("site-1", b"no event"))
    number = await parked_id(partition, offset=0)
    assert await partition.discard(number) is not None
    assert (await partition.position()).parked_entities == 0
    assert await partition.discard(number) is None
    assert await partition.discard(number + 1) is None


async def test_what_a_worker_applies_while_a_discard_waits_for_it_isnt_discarded(
    partition: Partition, database: Settings
) -> None:
    await partition.feed(renamed())
    number = await parked_id(partition, offset=0)
    async with open_partition(database) as worker:
        worker.records = partition.records
        async with worker.connection.transaction():
            await worker.feed(event("site_created"))
            discarding = asyncio.create_task(partition.discard(number))
            await until("the discard to wait", partial(worker.connection.fetchval, WAITING))
    assert await discarding is None
    assert await partition.parked() == [(0, "applied", "waiting")]


async def test_of_two_who_discard_at_once_one_has_done_it(partition: Partition, database: Settings) -> None:
    await partition.feed(("site-1", b"no event"))
    number = await parked_id(partition, offset=0)
    async with open_partition(database) as other, open_partition(database) as looking:
        async with looking.connection.transaction():
            await looking.connection.execute("SELECT FROM sitelog.consumer_position FOR UPDATE")
            both = [asyncio.create_task(one.discard(number)) for one in (partition, other)]
            await until("both to wait", partial(looking.connection.fetchval, f"{WAITING} HAVING count(*) = 2"))
        assert [await one for one in both].count(None) == 1


async def test_those_behind_a_discarded_event_take_several_transactions_where_they_are_many(
    partition: Partition,
) -> None:
    partition.take_aside(Limits(3, 2_621_440))
    await partition.feed(event("site_created"), ("site-1", b"no event"), *(renamed() for _ in range(9)))
    moved = await partition.discard(await parked_id(partition, offset=1))
    assert moved is not None
    assert (moved.applied, moved.left) == (9, 0)


async def test_an_event_without_key_and_id_can_only_be_discarded(partition: Partition) -> None:
    await partition.feed(event("site_created"))
    await partition.connection.execute(
        "INSERT INTO sitelog.parked_event (consumer, log_partition, kafka_offset, entity_id, status, reason, message, "
        "append_time, parked_at) SELECT 'projector', log_partition, 99, '', 'parked', 'missing_key', '', now(), now() "
        "FROM sitelog.log_partition WHERE topic = $1 AND partition = 0",
        partition.topic,
    )
    assert [one async for one in partition.unpark.stopped(partition.connection)] == []
    moved = await partition.discard(await parked_id(partition, offset=99))
    assert moved is not None
    assert (moved.applied, moved.left) == (0, 0)


async def test_every_stopped_entity_is_found_once_however_many_there_are(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sitelog.projections._unpark.ENTITIES_AT_ONCE", 3)
    await partition.feed(*((f"site-{n}", b"no event") for n in range(10)))
    found = [one.entity_id async for one in partition.unpark.stopped(partition.connection)]
    assert sorted(found) == sorted(f"site-{n}" for n in range(10))


async def test_a_creation_stops_at_an_unreadable_event_between_it_and_those_that_wait(partition: Partition) -> None:
    created, early = event("site_created"), renamed()
    await partition.feed(early, ("site-1", b"no event"), created, renamed())
    assert [event_id for *_, event_id in await partition.log()] == [created.event_id, early.event_id]
    statuses = [(offset, status) for offset, status, _ in await partition.parked()]
    assert statuses == [(1, "parked"), (3, "behind")]


async def test_a_position_moved_back_reads_everything_again_and_changes_nothing(partition: Partition) -> None:
    await partition.feed(event("site_created"), ("site-1", b"no event"), renamed())
    await partition.feed(event("site_created", "site-2"), ("site-3", b"no event"))
    await partition.discard(await parked_id(partition, offset=4))
    log, parked, before = await partition.log(), await partition.parked(), await partition.position()
    await partition.connection.execute("UPDATE sitelog.consumer_position SET next_offset = 0")
    outcome = await partition.apply(0)
    assert (outcome.verdict, outcome.events, outcome.duplicates) == ("applied", 0, 5)
    assert await partition.log() == log
    assert await partition.parked() == parked
    assert await partition.position() == before._replace(epoch=before.epoch + 1)


async def test_what_was_applied_before_its_entity_stopped_isnt_put_behind_it_when_it_comes_again(
    partition: Partition,
) -> None:
    await partition.feed(event("site_created"), event("contract_updated", contract_id="contract-2"))
    parked = await partition.parked()
    assert parked == [(1, "waiting", "waiting")]
    await partition.connection.execute("UPDATE sitelog.consumer_position SET next_offset = 0")
    for offset in (0, 1):
        outcome = await partition.apply(offset, offset + 1)
        assert (outcome.verdict, outcome.duplicates) == ("applied", 1)
    assert await partition.parked() == parked
    await partition.feed(event("contract_created", contract_id="contract-2"))
    assert await partition.parked() == [(1, "applied", "waiting")]
    assert await partition.version("site-1") == 3


@pytest.mark.usefixtures("kafka")
async def test_entities_are_retried_beside_a_running_worker_under_load(rig: Rig) -> None:
    await rig.connection.execute("ALTER TABLE customer_sites_v1 ADD CONSTRAINT held CHECK (site_name <> 'Held')")
    worker = await rig.worker()
    held = [f"held-{n}" for n in range(HELD_SITES)]
    async with rig.ledger.load(Lives(11), per_second=LOAD):
        for site in held:
            await rig.ledger.append(event("site_created", site, site_data={"name": "Held"}))
        await until("sites that are stopped", lambda: are_stopped(rig, HELD_SITES))
        await rig.connection.execute("ALTER TABLE customer_sites_v1 DROP CONSTRAINT held")
        async with rig.ledger.load((renamed(site) for site in cycle(held)), per_second=LOAD):
            await until("events behind", lambda: are_behind(rig, 5 * HELD_SITES))
            config = config_file(rig.services, rig.database)
            codes = await asyncio.gather(*(retry_all(config) for _ in range(3)))
    assert codes == [0, 0, 0]
    await rig.check()
    assert await are_stopped(rig, 0)
    assert await rig.connection.fetchval("SELECT sum(parked_entities) FROM sitelog.consumer_position") == 0
    assert worker.runs
    assert await worker.metric("sitelog_batches_total", verdict="fenced") == 0
    assert await worker.metric("sitelog_batches_total", verdict="lost") == 0


async def retry_all(config: Path) -> int:
    """Run the command as an operator does."""
    command = (sys.executable, "-m", "sitelog.cli", "parked", "retry", "--all", "--config", str(config))
    process = await asyncio.create_subprocess_exec(*command)
    return await process.wait()


async def are_stopped(rig: Rig, entities: int) -> bool:
    stopped = "SELECT count(DISTINCT entity_id) FROM sitelog.parked_event WHERE closed_at IS NULL"
    return bool(await rig.connection.fetchval(stopped) == entities)


async def are_behind(rig: Rig, events: int) -> bool:
    behind = "SELECT count(*) FROM sitelog.parked_event WHERE closed_at IS NULL AND status = 'behind'"
    return bool(await rig.connection.fetchval(behind) >= events)


async def parked_id(partition: Partition, *, offset: int) -> int:
    number: int = await partition.connection.fetchval(
        "SELECT parked_id FROM sitelog.parked_event WHERE kafka_offset = $1", offset
    )
    return number
