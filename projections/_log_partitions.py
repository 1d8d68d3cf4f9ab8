"""Which partitions the log is made of: as many as each topic has, from the first event on and for good."""

from collections.abc import Mapping
from typing import Any, Final

from sitelog.streams.errors import Halt
from sitelog.streams.settings import TopicSettings
from sitelog.streams.topics import EXIT_TOPICS

ADD: Final = """
INSERT INTO sitelog.log_partition (log_partition, topic, partition)
SELECT coalesce(max(log_partition), 0) + 1, $1, $2 FROM sitelog.log_partition
ON CONFLICT (topic, partition) DO NOTHING
"""

# What nobody has read anything of yet may still change.
KNOWN: Final = """
SELECT p.topic, max(p.partition) + 1 AS partitions, max(p.partition) FILTER (WHERE o.next_offset > 0) + 1 AS in_use
FROM sitelog.log_partition AS p LEFT JOIN sitelog.consumer_position AS o USING (log_partition)
GROUP BY p.topic
ORDER BY p.topic
"""

WHY: Final = (
    "The number is for good once events are applied: with another one, entities move to other partitions, and their "
    "events out of order"
)


async def add_partitions(connection: Any, topics: Mapping[str, TopicSettings]) -> None:
    """Make the configured partitions known. Raises Halt where a topic is in use with fewer."""
    known = {row["topic"]: row for row in await connection.fetch(KNOWN)}
    for name, wanted in topics.items():
        row = known.get(name)
        if row is not None and row["in_use"] is not None and row["partitions"] < wanted.partitions:
            raise _other_number(name, row["partitions"], wanted.partitions)
        for partition in range(wanted.partitions):
            await connection.execute(ADD, name, partition)


async def check_partitions(connection: Any, topics: Mapping[str, TopicSettings]) -> None:
    """Raise Halt unless the configuration has the topics and partitions that the database was filled from.

    A worker that reads fewer would leave the others standing still without a word.
    """
    for name, partitions, in_use in await connection.fetch(KNOWN):
        if name not in topics and in_use is not None:
            raise Halt(
                f"topic {name}: the database holds events of it, kafka_config.topics doesn't name it: they would "
                "stand still unseen. Is this the right database? If so, name the topic, with "
                f"{partitions} partitions",
                EXIT_TOPICS,
            )
        if in_use is not None and not in_use <= topics[name].partitions <= partitions:
            raise _other_number(name, partitions, topics[name].partitions)


def _other_number(topic: str, known: int, configured: int) -> Halt:
    return Halt(
        f"topic {topic}: expected {known} partitions, as the database was filled from, found {configured} in "
        f"kafka_config.topics. {WHY}. Create the topic again with {known}, or check that this is the right database",
        EXIT_TOPICS,
    )
