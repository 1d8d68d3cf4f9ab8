"""Rule 9: nothing is skipped silently. A worker that can't go on where it stands ends, with the numbers in its log."""

import asyncio
import os
import random
import re
import signal
import struct
from collections.abc import AsyncIterator
from zlib import crc32

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.codec import snappy_encode
from aiokafka.record.util import calc_crc32c

from sitelog.deploy._daemon import stop_together
from sitelog.deploy.kafka import broker_daemon, start_brokers
from sitelog.streams._group import Purpose, refuse_strangers
from sitelog.streams._kafka import kafka_client_options
from sitelog.streams.codec import Codec
from sitelog.streams.events import SiteCreated, SiteValues
from sitelog.streams.topics import create_topics
from tests.conftest import Services, recreate_topics
from tests.rig import Rig, open_rig
from tests.until import until
from tests.worker_process import WorkerProcess

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kafka")]

TOPIC = "customer-sites-events"
FIRST, END = 10, 30
"""Of the partition that the tests look at: the records before FIRST are deleted."""

BATCH_HEADER_BYTES = 61
SNAPPY = 2

STAND = """
INSERT INTO sitelog.consumer_position
    (consumer, log_partition, next_offset, log_seq, epoch, generation, owner, anchor, updated_at)
SELECT 'projector', log_partition, $2, 0, 1, 0, 'this test', $3, now()
FROM sitelog.log_partition
WHERE topic = $1 AND partition = 0
"""

RENUMBER = "UPDATE sitelog.log_partition SET partition = $3 WHERE topic = $1 AND partition = $2"


@pytest.fixture
async def new_rig(services: Services, database_template: str) -> AsyncIterator[Rig]:
    async with open_rig(services, database_template) as rig:
        yield rig


@pytest.fixture(scope="module")
async def shared_rig(services: Services, database_template: str) -> AsyncIterator[Rig]:
    async with open_rig(services, database_template) as rig:
        await put(rig, range(END))
        await delete_before(rig, FIRST)
        yield rig


@pytest.fixture
async def rig(shared_rig: Rig) -> AsyncIterator[Rig]:
    """The same records for all; positions as if nobody had been here."""
    yield shared_rig
    await shared_rig.connection.execute("DELETE FROM sitelog.consumer_position")


def key(number: int) -> bytes:
    return f"site-{number}".encode()


def value(number: int, name: str = "site") -> bytes:
    return Codec().encode(SiteCreated(site_id=f"site-{number}", site_data=SiteValues(name=name)))


async def put(rig: Rig, numbers: range, *, name_bytes: int = 1) -> None:
    """Create sites with these numbers, under names that don't compress."""
    names = random.Random(1)  # noqa: S311 - not a secret
    producer = AIOKafkaProducer(**kafka_client_options(rig.settings), linger_ms=0)
    async with producer:
        for number in numbers:
            await producer.send_and_wait(TOPIC, value(number, names.randbytes(name_bytes).hex()), key(number), 0)


async def delete_before(rig: Rig, offset: int) -> None:
    admin = AIOKafkaAdminClient(**kafka_client_options(rig.settings))
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(TOPIC, 0): RecordsToDelete(before_offset=offset)})
    finally:
        await admin.close()


async def stand_at(rig: Rig, next_offset: int, anchor: int | None = None) -> None:
    """Say in Postgres that the records before this one are applied."""
    await rig.connection.execute(STAND, TOPIC, next_offset, anchor)


async def last_words(worker: WorkerProcess, exit_code: int) -> str:
    """Wait for the worker to end with this code, and return the last thing that it found critical."""
    assert await worker.ends(60) == exit_code, worker.text()
    *_, last = [line["message"] for line in worker.log() if line["level"] == "critical"]
    return str(last)


async def test_rule_9_events_deleted_before_they_were_applied_end_the_worker_with_74(rig: Rig) -> None:
    await stand_at(rig, FIRST - 4)

    said = await last_words(await rig.launch(), 74)

    assert (
        "customer-sites-events[0]: the stored position 6 is below the topic's first offset 10: 4 events were deleted "
        "before they were applied. Restore them, or accept the loss with `sitelog position set`"
    ) in said


async def test_rule_9_a_position_beyond_the_topics_end_ends_the_worker_with_73(rig: Rig) -> None:
    await stand_at(rig, END + 1)

    said = await last_words(await rig.launch(), 73)

    assert "customer-sites-events[0]: the stored position 31 is beyond the topic's end 30: the topic was " in said


async def test_rule_9_another_record_where_the_last_applied_one_was_ends_the_worker_with_76(rig: Rig) -> None:
    """A topic that was created again, and has outgrown the position meanwhile."""
    applied = crc32(value(19, "in the topic that was there before"))
    await stand_at(rig, 20, applied)

    said = await last_words(await rig.launch(), 76)

    assert "customer-sites-events[0]: the record at offset 19 is not the one applied last: expected check" in said
    assert f"checksum {applied}, found " in said


async def test_rule_9_records_that_a_broker_has_lost_and_replaced_end_the_worker_that_was_reading_with_76(
    new_rig: Rig,
) -> None:
    session = 30  # nobody leaves the group meanwhile, and nothing is claimed
    worker = await new_rig.worker(session_timeout_seconds=session)
    await put(new_rig, range(20))

    async def are_applied() -> bool:
        return await new_rig.log_rows() == 20

    await until("all of them", are_applied)
    worker.send(signal.SIGSTOP)
    await lose(new_rig, 5)
    await put(new_rig, range(100, 120))
    worker.send(signal.SIGCONT)
    assert await worker.ends(60) == 76
    assert "the record at offset 19 is not the one applied last" in worker.text()
    assert await new_rig.log_rows() == 20
    admin = AIOKafkaAdminClient(**kafka_client_options(new_rig.settings))
    await admin.start()
    try:  # whoever comes next would meet it there
        await refuse_strangers(admin, Purpose("projector", "no policy", "no database"), session)
    finally:
        await admin.close()


async def lose(rig: Rig, batches: int) -> None:
    """Kill the broker, take the last of Kafka's batches from its disk, as a loss of power may, and start it again."""
    folder, state = rig.services.folder, rig.services.state
    daemon = broker_daemon(folder, state.brokers[0])
    await asyncio.to_thread(stop_together, [daemon], [(signal.SIGKILL, 20.0)])
    (segment,) = folder.rglob(f"{TOPIC}-0/*.log")
    data, ends = segment.read_bytes(), [0]
    while ends[-1] < len(data) and (length := int.from_bytes(data[ends[-1] + 8 : ends[-1] + 12])):
        ends.append(ends[-1] + 12 + length)
    with segment.open("r+b") as file:
        file.truncate(ends[-1 - batches])
    await start_brokers(folder, state, os.environ, print)


async def test_rule_9_a_partition_that_the_database_was_not_told_of_ends_the_worker_with_79(rig: Rig) -> None:
    await stand_at(rig, FIRST)  # or the worker might end for what was deleted before
    await rig.connection.execute(RENUMBER, TOPIC, 5, 7)
    try:
        said = await last_words(await rig.launch(), 79)
    finally:
        await rig.connection.execute(RENUMBER, TOPIC, 7, 5)

    assert "customer-sites-events[5] is not in sitelog.log_partition: the topic has more partitions than the" in said


async def test_rule_9_events_deleted_while_they_are_read_end_the_worker_with_74(rig: Rig) -> None:
    await stand_at(rig, FIRST)
    # The fetch that is under way brings this much at most; the next one asks for what is gone.
    worker = await rig.worker(batch_bytes_max=1_048_576)
    worker.send(signal.SIGSTOP)
    await put(rig, range(END, END + 20), name_bytes=100_000)
    await delete_before(rig, END + 19)
    worker.send(signal.SIGCONT)

    said = await last_words(worker, 74)

    assert re.search(r"the stored position \d\d is below the topic's first offset 49: \d\d? events were deleted", said)


async def test_rule_9_a_log_that_is_ahead_of_its_position_ends_the_worker_with_70(new_rig: Rig) -> None:
    """Restored from a backup in parts, or changed by hand: no event may be put aside for that."""
    worker = await new_rig.worker()
    await put(new_rig, range(2))
    await new_rig.progress()
    await worker.stop()
    await new_rig.connection.execute("UPDATE sitelog.consumer_position SET log_seq = 0")
    await put(new_rig, range(2, 3))

    said = await last_words(await new_rig.launch(), 70)

    assert 'duplicate key value violates unique constraint "event_log_pkey"' in said
    assert await new_rig.connection.fetchval("SELECT count(*) FROM sitelog.parked_event") == 0


async def test_rule_9_a_producers_transaction_ends_the_worker_with_74_and_nothing_of_it_is_applied(
    new_rig: Rig,
) -> None:
    """It isn't committed yet, and here it never is."""
    await put(new_rig, range(2))
    producer = AIOKafkaProducer(**kafka_client_options(new_rig.settings), transactional_id="another team's")
    async with producer:
        await producer.begin_transaction()
        await producer.send_and_wait(TOPIC, value(2), key(2), 0)

        said = await last_words(await new_rig.launch(), 74)

        assert (
            "customer-sites-events[0]: expected records outside of transactions, got those of one from offset " in said
        )
        assert said.endswith(": a compacted or transactional topic can't be a log (exit 74)")
        await producer.abort_transaction()
    (applied,) = await new_rig.connection.fetch("SELECT count(*), max(kafka_offset) FROM sitelog.event_log")
    assert tuple(applied) == (2, 1)


async def test_rule_9_a_topic_that_is_deleted_ends_the_worker_with_79(new_rig: Rig) -> None:
    worker = await new_rig.worker(metadata_max_age_seconds=1)
    admin = AIOKafkaAdminClient(**kafka_client_options(new_rig.settings))
    await admin.start()
    try:
        await admin.delete_topics([TOPIC])
        said = await last_words(worker, 79)
    finally:
        await admin.close()
        await create_topics(new_rig.settings)

    assert said.endswith(f": expected the topic {TOPIC}, got none of that name any more (exit 79)")


async def test_rule_9_a_record_that_the_client_cant_get_past_ends_the_worker_with_its_offset(new_rig: Rig) -> None:
    producer = AIOKafkaProducer(**kafka_client_options(new_rig.settings))
    async with producer:
        await producer.send_and_wait(TOPIC, value(0), key(0), 0)
        batch = producer.create_batch()
        batch.append(key=key(1), value=value(1), timestamp=None, headers=[("name", b"value")])
        batch.close()
        batch._buffer = rewritten(batch._build(), {b"name": b"\xff\xff\xff\xff"})
        await (await producer.send_batch(batch, TOPIC, partition=0))

    said = await last_words(await new_rig.launch(), 70)
    await recreate_topics(new_rig.settings)  # no client in any later test gets past it either
    applied = await new_rig.connection.fetchval("SELECT max(next_offset) FROM sitelog.consumer_position")

    assert "customer-sites-events[0]: expected header names in UTF-8 in the record at offset 1, got b'\\xff" in said
    assert "skip to 2 with `sitelog position set`" in said
    assert applied == 1  # nothing before it is skipped with it


def rewritten(batch: bytes, replaced: dict[bytes, bytes]) -> bytearray:
    """Return the record batch with bytes replaced; compressed as the topic is, or the broker would mend it."""
    records = bytes(batch[BATCH_HEADER_BYTES:])
    for old, new in replaced.items():
        records = records.replace(old, new)
    changed = bytearray(batch[:BATCH_HEADER_BYTES]) + snappy_encode(records)
    struct.pack_into(">i", changed, 8, len(changed) - 12)
    struct.pack_into(">h", changed, 21, SNAPPY)
    struct.pack_into(">I", changed, 17, calc_crc32c(bytes(changed[21:])))
    return changed
