"""Where the consumers stand, and who moved a position by hand."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

POSITIONS: Final = """
SELECT
    o.consumer,
    p.topic,
    p.partition,
    o.next_offset,
    o.log_seq,
    o.epoch,
    o.generation,
    o.owner,
    o.anchor IS NOT NULL AS anchored,
    o.parked_entities,
    o.last_event_time,
    o.updated_at
FROM sitelog.consumer_position AS o
JOIN sitelog.log_partition AS p USING (log_partition)
ORDER BY o.consumer, p.topic, p.partition
"""

CHANGES: Final = """
SELECT c.consumer, p.topic, p.partition, c.from_offset, c.to_offset, c.changed_at, c.changed_by, c.reason
FROM sitelog.position_change AS c
JOIN sitelog.log_partition AS p USING (log_partition)
ORDER BY c.change_id DESC
LIMIT $1
"""


STOPPED: Final = """
SELECT p.topic, coalesce(sum(o.parked_entities), 0)::bigint
FROM sitelog.log_partition AS p
LEFT JOIN sitelog.consumer_position AS o ON o.log_partition = p.log_partition AND o.consumer = $1
GROUP BY p.topic
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """One consumer's position in one partition. `anchored`: the record before it is checked at the next claim."""

    consumer: str
    topic: str
    partition: int
    next_offset: int
    log_seq: int
    epoch: int
    generation: int
    owner: str
    anchored: bool
    parked_entities: int
    last_event_time: datetime | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """A position that a person moved. `from_offset` is None where nobody had claimed the partition yet."""

    consumer: str
    topic: str
    partition: int
    from_offset: int | None
    to_offset: int
    changed_at: datetime
    changed_by: str
    reason: str


async def positions(connection: Any) -> list[Standing]:
    """Return every consumer's positions, by consumer, topic and partition."""
    return [Standing(*row) for row in await connection.fetch(POSITIONS)]


async def changes(connection: Any, limit: int) -> list[Change]:
    """Return the newest changes made by hand, the newest first."""
    return [Change(*row) for row in await connection.fetch(CHANGES, limit)]


async def stopped_entities(connection: Any, consumer: str) -> dict[str, int]:
    """Return how many entities are stopped, by topic: none in one that nobody has claimed yet."""
    return dict(await connection.fetch(STOPPED, consumer))
