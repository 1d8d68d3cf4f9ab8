"""In which portions, and of which partitions, a worker's consumer gives out what it has fetched."""

import uuid
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.consumer import fetcher

from sitelog.streams._consumer_thread import FIRST_POLL_RECORDS, GROWTH, BatchConsumerThread
from sitelog.streams._fetched import TAKEN_AT_ONCE, EpochRecords, LeanRecords, LeanResult
from tests.until import until

pytestmark = pytest.mark.services

PARTITIONS = 3
EACH = 6 * FIRST_POLL_RECORDS


@pytest.fixture
async def consumer(kafka: list[str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """A consumer of three partitions that has the same number of records of each in memory already."""
    monkeypatch.setattr(fetcher, "MemoryRecords", EpochRecords)
    monkeypatch.setattr(fetcher, "PartitionRecords", LeanRecords)
    monkeypatch.setattr(fetcher, "FetchResult", LeanResult)
    topic = f"fetched-{uuid.uuid4().hex}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        for number in range(EACH):
            for partition in range(PARTITIONS):
                await producer.send(topic, str(number).encode(), partition=partition)
    async with AIOKafkaConsumer(bootstrap_servers=kafka) as consumer:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        for tp in partitions:
            consumer.seek(tp, 0)
        await until("all partitions' records in memory", lambda: fetched(consumer))
        yield consumer


async def fetched(consumer: Any) -> bool:
    return len(consumer._fetcher._records) == PARTITIONS


async def polls(
    consumer: Any, count: int, *, records_max: int = EACH, bytes_max: int = 1_000_000
) -> list[list[tuple[int, int]]]:
    """Poll so often; return partition and number of records of everything that each poll brought."""
    thread = cast("Any", object.__new__(BatchConsumerThread))
    thread.consumer = SimpleNamespace(flow_active=True)
    thread.app = SimpleNamespace(poll_bytes_max=bytes_max)
    found = []
    for _ in range(count):
        fetched = await thread._fetch_records(consumer, consumer.assignment(), timeout=5.0, max_records=records_max)
        found.append([(tp.partition, len(records)) for tp, records in fetched.items()])
    return found


async def test_each_poll_begins_with_another_partition(consumer: Any) -> None:
    found = await polls(consumer, 6, records_max=FIRST_POLL_RECORDS)
    order = [partition for ((partition, records),) in found if records == FIRST_POLL_RECORDS]
    assert sorted(order[:3]) == [0, 1, 2]
    assert order[3:] == order[:3]


async def test_the_first_polls_bring_little_and_each_much_more_than_the_one_before(consumer: Any) -> None:
    assert GROWTH > 1
    found = await polls(consumer, 3, records_max=(GROWTH + 1) * FIRST_POLL_RECORDS)
    sizes = [sum(records for _, records in one) for one in found]
    assert [size / FIRST_POLL_RECORDS for size in sizes] == [1, GROWTH, GROWTH + 1]


async def test_a_poll_brings_no_more_bytes_than_allowed_and_the_next_one_goes_on(consumer: Any) -> None:
    found = await polls(consumer, PARTITIONS, bytes_max=TAKEN_AT_ONCE)  # the first values have a digit or two
    assert {partition for ((partition, _),) in found} == {0, 1, 2}
    assert {records for ((_, records),) in found} == {TAKEN_AT_ONCE}


async def test_what_comes_says_under_which_leader_it_was_written(consumer: Any) -> None:
    await polls(consumer, PARTITIONS)
    # A broker that was never replaced is in its first epoch.
    assert {LeanResult.epochs[tp] for tp in consumer.assignment()} == {(0, 0)}
