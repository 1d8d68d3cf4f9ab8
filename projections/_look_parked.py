"""What is put aside: by entity, and each event with all that is known of it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

# SQL is put together from the constants of this file alone; values are parameters.
# ruff: noqa: S608

# One row per stopped entity; an event without key and id stops nobody, so it is a row of its own.
STOPPED: Final = """
(
    SELECT DISTINCT ON (e.log_partition, e.consumer, e.entity_id, own_row)
        e.consumer,
        p.topic,
        p.partition,
        e.entity_id,
        e.parked_id,
        e.status,
        e.reason,
        e.message,
        e.parked_at AS since,
        count(*) OVER (PARTITION BY e.log_partition, e.consumer, e.entity_id, own_row) AS events
    FROM sitelog.parked_event AS e
    JOIN sitelog.log_partition AS p USING (log_partition)
    CROSS JOIN LATERAL (SELECT CASE WHEN e.entity_id = '' THEN e.parked_id ELSE 0 END) AS o(own_row)
    WHERE e.closed_at IS NULL
    ORDER BY e.log_partition, e.consumer, e.entity_id, own_row, e.kafka_offset
) AS stopped
"""

ENTITIES: Final = f"""
SELECT consumer, topic, partition, entity_id, parked_id, status, reason, message, since, events - 1
FROM {STOPPED}
WHERE $1::text IS NULL OR reason = $1
ORDER BY since, parked_id
LIMIT $2
"""

REASONS: Final = f"SELECT reason, count(*) FROM {STOPPED} GROUP BY reason ORDER BY count(*) DESC, reason"

COUNTS: Final = """
SELECT count(*), count(DISTINCT (consumer, log_partition, entity_id)) FILTER (WHERE entity_id <> '')
FROM sitelog.parked_event
WHERE closed_at IS NULL
"""

COLUMNS: Final = """
    e.parked_id,
    e.consumer,
    p.topic,
    p.partition,
    e.kafka_offset,
    e.entity_id,
    e.status,
    e.reason,
    e.message,
    e.append_time,
    e.parked_at,
    e.closed_at,
    e.closed_by,
    e.close_reason
"""

EVENT: Final = f"""
SELECT {COLUMNS}, e.key, e.value, e.headers
FROM sitelog.parked_event AS e
JOIN sitelog.log_partition AS p USING (log_partition)
WHERE e.parked_id = $1
"""

# What was applied at last is in the log; what was discarded is nowhere else.
FROM_ENTITY: Final = """
FROM sitelog.parked_event AS e
JOIN sitelog.log_partition AS p USING (log_partition)
WHERE e.entity_id = $1 AND p.topic = ANY($2) AND e.status <> 'applied'
"""

COUNT_OF_ENTITY: Final = f"SELECT count(*) {FROM_ENTITY}"

OF_ENTITY: Final = f"""
SELECT {COLUMNS}
{FROM_ENTITY}
ORDER BY e.log_partition, e.kafka_offset, e.parked_id
LIMIT $3
"""


@dataclass(frozen=True, slots=True)
class ParkedEntity:
    """An entity that is stopped: by which event, why, since when, and how many events are behind that one."""

    consumer: str
    topic: str
    partition: int
    entity_id: str
    parked_id: int
    status: str
    reason: str
    message: str
    since: datetime
    behind: int


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """One event that was put aside."""

    parked_id: int
    consumer: str
    topic: str
    partition: int
    kafka_offset: int
    entity_id: str
    status: str
    reason: str
    message: str
    append_time: datetime
    parked_at: datetime
    closed_at: datetime | None
    closed_by: str | None
    close_reason: str | None


@dataclass(frozen=True, slots=True)
class ParkedRecord:
    """One event that was put aside, with the record as it came; `headers` is JSON with values in base64."""

    event: ParkedEvent
    key: bytes | None
    value: bytes | None
    headers: str | None


@dataclass(frozen=True, slots=True)
class ParkedCounts:
    """How much is put aside: events, entities that they stop, and for which reasons how many of these."""

    events: int
    entities: int
    reasons: dict[str, int]


async def entities(connection: Any, reason: str | None, limit: int) -> list[ParkedEntity]:
    """Return the entities that are stopped, for this reason if one is given, those stopped longest first."""
    return [ParkedEntity(*row) for row in await connection.fetch(ENTITIES, reason, limit)]


async def counts(connection: Any) -> ParkedCounts:
    """Return how many events are open, how many entities they stop, and why, what there is most of first."""
    events, entities = await connection.fetchrow(COUNTS)
    return ParkedCounts(events, entities, dict(await connection.fetch(REASONS)))


async def record(connection: Any, parked_id: int) -> ParkedRecord | None:
    """Return one event, open or closed, with its bytes; None where there is none of this number."""
    row = await connection.fetchrow(EVENT, parked_id)
    if row is None:
        return None
    *event, key, value, headers = row
    return ParkedRecord(ParkedEvent(*event), key, value, headers)


async def of_entity(connection: Any, entity_id: str, topics: list[str], limit: int) -> list[ParkedEvent]:
    """Return an entity's first `limit` events that are put aside or were discarded, in their order."""
    return [ParkedEvent(*row) for row in await connection.fetch(OF_ENTITY, entity_id, topics, limit)]


async def count_of_entity(connection: Any, entity_id: str, topics: list[str]) -> int:
    """Return how many of an entity's events are put aside or were discarded."""
    count: int = await connection.fetchval(COUNT_OF_ENTITY, entity_id, topics)
    return count
