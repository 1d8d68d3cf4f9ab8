"""A topic as somebody else has made it."""

import asyncio

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from sitelog.streams._kafka import kafka_client_options
from sitelog.streams.settings import Settings


async def make_foreign_topic(settings: Settings, name: str, partitions: int, configs: dict[str, str]) -> None:
    """Create a topic with these settings of its own, and return once the broker tells of it."""
    admin = AIOKafkaAdminClient(**kafka_client_options(settings))
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=configs)])
        async with asyncio.timeout(60):
            while name not in await admin.list_topics():
                pass
    finally:
        await admin.close()
