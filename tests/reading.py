"""Reads back what is in a topic, with a client of the test's own."""

from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from sitelog.streams._kafka import kafka_client_options
from sitelog.streams.settings import Settings


async def records_of(settings: Settings, topic: str, key_prefix: str) -> list[Any]:
    """All records of the topic whose key begins so, by partition and offset."""
    options = kafka_client_options(settings)
    consumer = AIOKafkaConsumer(enable_auto_commit=False, auto_offset_reset="none", **options)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, p) for p in range(settings.kafka_config.topics[topic].partitions)])
        partitions = sorted(consumer.assignment())
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        found: dict[TopicPartition, list[Any]] = {partition: [] for partition in partitions}
        while [one for one in partitions if await consumer.position(one) < ends[one]]:
            for partition, records in (await consumer.getmany(timeout_ms=200)).items():
                found[partition] += records
    finally:
        await consumer.stop()
    wanted = key_prefix.encode()
    return [one for records in found.values() for one in records if (one.key or b"").startswith(wanted)]
