"""Events put aside: whole, with their reason, and closed when they are applied or discarded."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from sitelog.projections._items import Item
from sitelog.projections._log_rows import headers_from, headers_json

MESSAGE_CHARACTERS_MAX: Final = 2_000

Status = Literal["parked", "waiting", "behind"]

STOPPED: Final = """
SELECT DISTINCT ON (entity_id) entity_id, status
FROM sitelog.parked_event
WHERE consumer = $1 AND log_partition = $2 AND closed_at IS NULL AND entity_id = ANY($3)
ORDER BY entity_id, parked_id
"""

# What a value begins with up to its body: a schema id or a fingerprint.
_FRAME: Final = r"substring(value FOR CASE WHEN value >= '\x01' THEN 10 ELSE 5 END)"

# $6 are the frames that are asked for, or null; $7 and $8 say after which event. Adding up sizes reads no value. Each
# entity is asked for by itself, so that the index gives the first of very many.
OPEN: Final = f"""
WITH first AS MATERIALIZED (
    SELECT parked_id, coalesce(sum(octets) OVER
        (ORDER BY kafka_offset, parked_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes_before
    FROM unnest($3::text[]) AS e(wanted), LATERAL (
        SELECT parked_id, kafka_offset, octet_length(value) AS octets
        FROM sitelog.parked_event
        WHERE consumer = $1 AND log_partition = $2 AND closed_at IS NULL AND entity_id = wanted
            AND (kafka_offset, parked_id) > ($7, $8) AND ($6::bytea[] IS NULL OR {_FRAME} = ANY($6))
        ORDER BY kafka_offset, parked_id
        LIMIT $4 + 1
    ) AS of_entity
    ORDER BY kafka_offset, parked_id
    LIMIT $4 + 1
)
SELECT parked_id, kafka_offset, entity_id, append_time, key, value, headers, (SELECT count(*) FROM first) AS found
FROM first
JOIN sitelog.parked_event USING (parked_id)
WHERE bytes_before < $5
ORDER BY kafka_offset, parked_id
LIMIT $4
"""  # noqa: S608 - literals only

FRAMES: Final = f"""
SELECT DISTINCT {_FRAME}
FROM sitelog.parked_event
WHERE consumer = $1 AND log_partition = $2 AND closed_at IS NULL AND entity_id = $3
"""  # noqa: S608 - literals only

COUNT: Final = """
SELECT count(*)
FROM sitelog.parked_event
WHERE consumer = $1 AND log_partition = $2 AND closed_at IS NULL AND entity_id = $3
"""

INSERT: Final = """
INSERT INTO sitelog.parked_event
    (consumer, log_partition, parked_at, kafka_offset, entity_id, status, reason, message, key, value, headers,
     append_time)
SELECT $1, $2, $3, *
FROM unnest($4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bytea[], $10::bytea[], $11::json[],
            $12::timestamptz[])
"""

CLOSE: Final = """
UPDATE sitelog.parked_event AS p
SET status = c.status, closed_at = $2, closed_by = $3
FROM unnest($1::bigint[], $4::text[]) AS c(parked_id, status)
WHERE p.parked_id = c.parked_id
"""

SEEN: Final = """
SELECT kafka_offset, append_time, value
FROM sitelog.parked_event
WHERE consumer = $1 AND log_partition = $2 AND kafka_offset BETWEEN $3 AND $4
"""

RESTATE: Final = """
UPDATE sitelog.parked_event AS p
SET status = c.status, reason = c.reason, message = c.message
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) AS c(parked_id, status, reason, message)
WHERE p.parked_id = c.parked_id
"""

STOPPED_ENTITIES: Final = """
SELECT count(DISTINCT entity_id)
FROM sitelog.parked_event
WHERE consumer = $1 AND log_partition = $2 AND closed_at IS NULL AND entity_id <> ''
"""


@dataclass(slots=True)
class ParkedRow:
    """One event to put aside."""

    item: Item
    status: Status
    reason: str
    message: str


@dataclass(slots=True)
class Closed:
    """One parked event that is over: applied, or discarded as a repetition or by a person."""

    parked_id: int
    status: Literal["applied", "discarded"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of what is put aside one transaction takes, so that it is none of another size than a worker's."""

    records: int
    bytes: int

    def are_exceeded_by(self, items: Sequence[Item]) -> bool:
        """Tell whether these are more than that."""
        return len(items) > self.records or sum(len(item.value or b"") for item in items) > self.bytes


@dataclass(frozen=True, slots=True)
class Shelf:
    """The parked events of one consumer and log partition, within a transaction that holds the position's lock."""

    connection: Any
    consumer: str
    log_partition: int

    async def stopped(self, entities: Collection[str]) -> dict[str, Status]:
        """Return which of the entities are stopped, and whether by a bad event or for want of their creation."""
        rows = await self.connection.fetch(STOPPED, self.consumer, self.log_partition, list(entities))
        return {row["entity_id"]: row["status"] for row in rows}

    async def count(self, entity_id: str) -> int:
        """Return how many open events the entity has."""
        count: int = await self.connection.fetchval(COUNT, self.consumer, self.log_partition, entity_id)
        return count

    async def open(
        self,
        entities: Collection[str],
        limits: Limits,
        *,
        frames: Sequence[bytes] | None = None,
        after: Item | None = None,
    ) -> tuple[list[Item], bool]:
        """Return the entities' first open events in their order, not decoded yet, and whether there are more.

        Only those that begin with one of the `frames`, and that are behind the event `after`, if these are given.
        """
        if not entities:
            return [], False
        place = (-1, 0) if after is None else (after.offset, after.parked_id)
        rows = await self.connection.fetch(
            OPEN, self.consumer, self.log_partition, list(entities), limits.records, limits.bytes, frames, *place
        )
        return [_item(row) for row in rows], bool(rows) and rows[0]["found"] > len(rows)

    async def frames(self, entity_id: str) -> list[bytes]:
        """Return what the values of the entity's open events begin with."""
        rows = await self.connection.fetch(FRAMES, self.consumer, self.log_partition, entity_id)
        return [row[0] for row in rows if row[0] is not None]

    async def unseen(self, items: Sequence[Item]) -> list[Item]:
        """Leave out the records that are here already, open or closed: a position was moved back over them."""
        if not items:
            return []
        rows = await self.connection.fetch(SEEN, self.consumer, self.log_partition, items[0].offset, items[-1].offset)
        seen = {(row["kafka_offset"], row["append_time"]): row["value"] for row in rows}
        nothing = object()
        return [item for item in items if seen.get((item.offset, item.append_time), nothing) != item.value]

    async def put(self, parked: Sequence[ParkedRow], at: datetime) -> None:
        """Put events aside; those that are here already get their new status and reason."""
        # In their order, also those that were tried again within the batch: their ids say who was here first.
        new = sorted((row for row in parked if row.item.parked_id is None), key=lambda row: row.item.offset)
        if new:
            columns = zip(*(_columns(row) for row in new), strict=True)
            await self.connection.execute(INSERT, self.consumer, self.log_partition, at, *(list(c) for c in columns))
        old = [(row.item.parked_id, row.status, row.reason, _told(row.message)) for row in parked if row.item.parked_id]
        if old:
            await self.connection.execute(RESTATE, *(list(column) for column in zip(*old, strict=True)))

    async def close(self, closed: Sequence[Closed], at: datetime, by: str) -> None:
        """Close events; they stay as a record."""
        if closed:
            await self.connection.execute(
                CLOSE, [row.parked_id for row in closed], at, by, [row.status for row in closed]
            )

    async def stopped_entities(self) -> int:
        """Return how many entities are stopped."""
        count: int = await self.connection.fetchval(STOPPED_ENTITIES, self.consumer, self.log_partition)
        return count


def _item(row: Any) -> Item:
    return Item(
        offset=row["kafka_offset"],
        append_time=row["append_time"],
        key=row["key"],
        value=row["value"],
        headers=headers_from(row["headers"]),
        entity_id=row["entity_id"],
        event=None,
        fingerprint=0,
        body=b"",
        problem=None,
        parked_id=row["parked_id"],
    )


def _told(message: str) -> str:
    """Return a message as a column can hold it: a bad event may be quoted in it."""
    return message[:MESSAGE_CHARACTERS_MAX].replace("\x00", "\\0")


def _columns(row: ParkedRow) -> tuple[Any, ...]:
    item = row.item
    return (
        item.offset,
        item.entity_id,
        row.status,
        row.reason,
        _told(row.message),
        item.key,
        item.value,
        headers_json(item.headers),
        item.append_time,
    )
