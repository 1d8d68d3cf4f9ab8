"""Replays beside running workers, under load, killed in the middle, and out of the topics themselves."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from itertools import islice

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from sitelog.agents.replay import replay
from sitelog.streams._kafka import kafka_client_options
from sitelog.streams.errors import Halt
from sitelog.streams.events import SiteCreated, SiteUpdated, SiteValues
from tests.commands import config_file
from tests.conftest import Services
from tests.lives import Lives
from tests.oracle import compare
from tests.read_models import LOADED
from tests.rig import Rig, open_rig
from tests.until import until
from tests.worker_process import WorkerProcess

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kafka")]

LOAD = 300
TABLE_ID = "SELECT 'customer_sites_v1'::regclass::oid::bigint"
FRESH = "SELECT count(*) FROM pg_class WHERE relname LIKE '%\\_next'"
HOME = """
SELECT p.partition
FROM customer_sites_v1 AS s
JOIN sitelog.log_partition AS p USING (log_partition)
WHERE s.site_id = $1
"""
WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'sitelog replay' AND wait_event_type = 'Lock'
"""


@pytest.fixture
async def rig(services: Services, database_template: str) -> AsyncIterator[Rig]:
    async with open_rig(services, database_template) as rig:
        yield rig


async def test_replays_beside_running_workers_lose_nothing(rig: Rig) -> None:
    await rig.worker()
    await rig.worker()
    tables = [await rig.connection.fetchval(TABLE_ID)]
    async with rig.ledger.load(Lives(1), per_second=LOAD):
        for _ in range(2):
            await rig.progress()
            report = await replay(rig.settings, LOADED)
            assert report.switched
            tables.append(await rig.connection.fetchval(TABLE_ID))
            report = await replay(rig.settings, LOADED, verify=True)
            assert report.differences == ()
    assert len(set(tables)) == len(tables)
    await rig.check()
    assert all(worker.runs for worker in rig.workers)


async def test_a_replay_killed_at_any_moment_leaves_the_tables_in_use(rig: Rig, services: Services) -> None:
    await rig.worker()
    await rig.ledger.append_all(islice(Lives(2), 5_000))
    await rig.applied()
    config = config_file(services, rig.database)
    before = await rig.connection.fetchval(TABLE_ID)
    chance = random.Random(3)  # noqa: S311 - not a secret
    for number in range(3):
        command = WorkerProcess(services.folder, f"{rig.database}-replay-{number}", config, command=("replay",))
        await command.start()
        await until("a replay at work", lambda: rig.connection.fetchval(FRESH))
        await asyncio.sleep(chance.random())  # any moment will do
        if command.runs:
            command.send(signal.SIGKILL)
        if await command.ends() == 0:
            before = await rig.connection.fetchval(TABLE_ID)
        assert await rig.connection.fetchval(TABLE_ID) == before
        assert await compare(rig.connection, rig.ledger.folded()) == []
    report = await replay(rig.settings, LOADED)
    assert report.switched
    assert await rig.connection.fetchval(FRESH) == 0
    await rig.check()


async def test_a_replay_that_is_told_to_end_leaves_nothing_of_it(rig: Rig, services: Services) -> None:
    await rig.worker()
    await rig.ledger.append_all(islice(Lives(4), 500))
    await rig.applied()
    before = await rig.connection.fetchval(TABLE_ID)
    command = WorkerProcess(
        services.folder, f"{rig.database}-replay", config_file(services, rig.database), command=("replay",)
    )
    reader = await rig.another_connection()
    async with reader.transaction():
        await reader.execute("SELECT FROM customer_sites LIMIT 1")  # nobody can switch meanwhile
        await command.start()
        await until("a replay that waits for the reader", lambda: rig.connection.fetchval(WAITING))
        command.send(signal.SIGTERM)
        assert (await command.ends(), command.text()) == (143, "")
    assert await rig.connection.fetchval(FRESH) == 0
    assert await rig.connection.fetchval(TABLE_ID) == before


async def test_the_topics_make_the_same_rows_as_the_log(rig: Rig) -> None:
    """With everything that puts events aside: overtaken creations, unreadable records, repetitions."""
    await rig.worker()
    early = SiteUpdated(site_id="early", changed_fields=("name",), new_values=SiteValues(name="Early"))
    lives = list(islice(Lives(3, sites=20), 400))
    await rig.ledger.append(early)
    await rig.ledger.append_all(lives[:200])
    await rig.ledger.append_all([SiteCreated(site_id="early", site_data=SiteValues(name="Late")), *lives[200:]])
    await rig.ledger.acknowledged()
    producer = rig.ledger._producer
    for key, value in ((b"early", b"{}"), (b"broken", b"\0"), (None, b"nobody")):
        await producer.send_and_wait("customer-sites-events", value, key=key)
    repeated = [rig.ledger._codec.encode(event) for event in lives[:50] if event.entity_type == "site"]
    keys = [event.entity_id.encode() for event in lives[:50] if event.entity_type == "site"]
    for key, value in zip(keys, repeated, strict=True):
        await producer.send_and_wait("customer-sites-events", value, key=key)
    await rig.ledger.append_all([SiteUpdated(site_id="never", changed_fields=("name",))])
    await rig.applied()
    assert await rig.connection.fetchval("SELECT count(*) FROM sitelog.parked_event WHERE closed_at IS NULL") == 4
    few = rig.settings.replay.model_copy(update={"batch_records_max": 20, "rows_in_memory_max": 10})
    settings = rig.settings.model_copy(update={"replay": few})
    report = await replay(settings, LOADED, source="topic", verify=True)
    assert report.differences == ()
    assert report.events == await rig.log_rows()
    report = await replay(rig.settings, LOADED, source="topic")
    assert report.switched
    assert await rig.connection.fetchval("SELECT site_name FROM customer_sites WHERE site_id = 'early'") == "Early"
    assert (await replay(rig.settings, LOADED, verify=True)).differences == ()
    await rig.ledger.append_all(islice(Lives(4, sites=5), 50))
    await rig.applied()
    assert (await replay(rig.settings, LOADED, verify=True)).differences == ()


async def test_what_a_producer_sends_to_another_partition_is_put_aside_from_the_topic_too(rig: Rig) -> None:
    """A creation there finds no row of its entity: only what is on record tells that the worker didn't apply it."""
    await rig.worker()
    created = SiteCreated(site_id="astray", site_data=SiteValues(name="At home"))
    again = SiteCreated(site_id="astray", site_data=SiteValues(name="From elsewhere"))
    await rig.ledger.append_all([created, *islice(Lives(7, sites=20), 100)])
    await rig.applied()
    topic, key, producer = "customer-sites-events", b"astray", rig.ledger._producer
    home = await rig.connection.fetchval(HOME, "astray")
    other = (home + 1) % rig.settings.kafka_config.topics[topic].partitions
    await producer.send_and_wait(topic, rig.ledger._codec.encode(again), key=key, partition=other)
    reason = "SELECT min(reason) FROM sitelog.parked_event"
    await until("the creation to be put aside", lambda: rig.connection.fetchval(reason))
    assert await rig.connection.fetchval(reason) == "wrong_partition"
    assert (await replay(rig.settings, LOADED, source="topic")).switched
    assert await rig.connection.fetchval("SELECT site_name FROM customer_sites WHERE site_id = 'astray'") == "At home"
    assert (await replay(rig.settings, LOADED, verify=True)).differences == ()


async def test_a_topic_that_lacks_its_first_records_is_refused_with_the_numbers(rig: Rig) -> None:
    await rig.worker()
    await rig.ledger.append_all(islice(Lives(5, sites=20), 300))
    await rig.applied()
    place = TopicPartition("customer-sites-events", 0)
    admin = AIOKafkaAdminClient(**kafka_client_options(rig.settings))
    await admin.start()
    await admin.delete_records({place: RecordsToDelete(before_offset=7)})
    await admin.close()
    with pytest.raises(Halt, match=r"customer-sites-events\[0\] begins at offset 7: its first 7 records are gone"):
        await replay(rig.settings, LOADED, source="topic")
    assert (await replay(rig.settings, LOADED)).switched


async def test_a_topic_that_says_something_else_than_the_log_is_refused(rig: Rig) -> None:
    await rig.worker()
    await rig.ledger.append_all(islice(Lives(6, sites=20), 300))
    await rig.applied()
    await rig.connection.execute("ALTER TABLE sitelog.event_log DISABLE TRIGGER event_log_append_only")
    await rig.connection.execute(
        "UPDATE sitelog.event_log SET event_id = gen_random_uuid() WHERE log_seq = 3 AND log_partition = 1"
    )
    with pytest.raises(Halt, match=r"customer-sites-events\[0\] offset 2, .*expected log seq 3, the log has none"):
        await replay(rig.settings, LOADED, source="topic")
