"""A topic as somebody else has made it."""

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from sitelog.streams._kafka import kafka_client_options
from sitelog.streams.settings import Settings


async def make_foreign_topic(settings: Settings, name: str, partitions: int, configs: dict[str, str]) -> None:
    """Create a topic with these settings of its own."""
    admin = AIOKafkaAdminClient(**kafka_client_options(settings))
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=configs)])
    finally:
        await admin.close()
