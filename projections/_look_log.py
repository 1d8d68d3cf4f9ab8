"""Reads the log for people and scripts: its newest events, and new ones as they come."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sitelog.streams._event import Event
from sitelog.streams.codec import Codec
from sitelog.streams.errors import Park

# SQL is put together from the constants of this file alone; values are parameters.
# ruff: noqa: S608

ROWS_AT_ONCE: Final = 500

CLOCKS_APART: Final = timedelta(minutes=1)
"""How far the clocks of two workers, and of a worker and a producer, may differ."""

_FIRST: Final = datetime.min.replace(tzinfo=UTC) + CLOCKS_APART

COLUMNS: Final = """
    l.log_seq,
    l.kafka_offset,
    l.event_id::text,
    l.event_type,
    l.entity_id,
    l.event_time,
    l.append_time,
    l.ingest_time,
    l.schema_fingerprint,
    l.headers,
    l.payload
"""

WANTED: Final = """
($4::text IS NULL OR l.entity_id = $4)
AND ($5::text[] IS NULL OR l.event_type = ANY($5))
AND ($6::timestamptz IS NULL OR l.append_time >= $6)
AND ($7::timestamptz IS NULL OR l.append_time < $7)
"""

PARTITIONS: Final = """
SELECT
    p.log_partition,
    p.topic,
    p.partition,
    coalesce((SELECT max(l.log_seq) FROM sitelog.event_log AS l WHERE l.log_partition = p.log_partition), 0)
FROM sitelog.log_partition AS p
WHERE ($1::text IS NULL OR p.topic = $1) AND ($2::integer IS NULL OR p.partition = $2)
ORDER BY p.log_partition
"""

INGESTED: Final = "SELECT ingest_time FROM sitelog.event_log WHERE log_partition = $1 AND log_seq = $2"

# Each log partition gives its newest; the newest of these, in the order in which they were applied.
TAIL: Final = f"""
SELECT * FROM (
    SELECT p.log_partition, {COLUMNS}
    FROM unnest($1::smallint[], $2::bigint[], $3::bigint[]) AS p(log_partition, after_seq, last_seq)
    CROSS JOIN LATERAL (
        SELECT *
        FROM sitelog.event_log AS l
        WHERE l.log_partition = p.log_partition AND l.log_seq > p.after_seq AND l.log_seq <= p.last_seq AND {WANTED}
        ORDER BY l.log_seq DESC
        LIMIT $8
    ) AS l
    ORDER BY l.ingest_time DESC, p.log_partition DESC, l.log_seq DESC
    LIMIT $8
) AS newest
ORDER BY ingest_time, log_partition, log_seq
"""

NEXT: Final = f"""
SELECT l.log_partition, {COLUMNS}
FROM sitelog.event_log AS l
WHERE l.log_partition = $1 AND l.log_seq > $2 AND l.log_seq <= $3 AND {WANTED}
ORDER BY l.log_seq
LIMIT $8
"""

SCHEMA: Final = "SELECT schema::text FROM sitelog.avro_schema WHERE fingerprint = $1"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events: of this entity, of these types, in this topic and partition, appended in this time; None is any.

    `until` itself isn't wanted.
    """

    entity_id: str | None = None
    event_types: Sequence[str] | None = None
    topic: str | None = None
    partition: int | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(slots=True)
class Stretch:
    """A part of one log partition: the events after `after_seq`, up to `last_seq`."""

    log_partition: int
    topic: str
    partition: int
    last_seq: int
    after_seq: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One event as the log has it; `headers` is JSON with values in base64, `payload` Avro without framing."""

    topic: str
    partition: int
    log_seq: int
    kafka_offset: int
    event_id: str
    event_type: str
    entity_id: str
    event_time: datetime
    append_time: datetime
    ingest_time: datetime
    schema_fingerprint: int
    headers: str | None
    payload: bytes


async def stretches(connection: Any, wanted: Wanted) -> list[Stretch]:
    """Return the parts of the log, up to its end as it is now, in which wanted events can be."""
    parts = [
        Stretch(log_partition, topic, partition, last_seq)
        for log_partition, topic, partition, last_seq in await connection.fetch(
            PARTITIONS, wanted.topic, wanted.partition
        )
    ]
    if wanted.since is not None:
        since = max(wanted.since.astimezone(UTC), _FIRST) - CLOCKS_APART
        for part in parts:
            part.after_seq = await _before(connection, part, since)
    return parts


async def _before(connection: Any, part: Stretch, at: datetime) -> int:
    """Return the log seq up to which everything was applied before `at`: found by halves, as that rises with it."""
    before, last = 0, part.last_seq
    while before < last:
        middle = (before + last + 1) // 2
        if await connection.fetchval(INGESTED, part.log_partition, middle) < at:
            before = middle
        else:
            last = middle - 1
    return before


async def tail(connection: Any, parts: Sequence[Stretch], wanted: Wanted, limit: int | None) -> AsyncGenerator[Entry]:
    """Yield the newest wanted events, or all of them, in the order in which they were applied.

    Postgres keeps what isn't read yet: the memory needed here doesn't depend on `limit`.
    """
    places = {part.log_partition: part for part in parts}
    arrays = zip(*((part.log_partition, part.after_seq, part.last_seq) for part in parts), strict=True)
    columns = [list(column) for column in arrays] or [[], [], []]
    async with connection.transaction(readonly=True):
        async for row in connection.cursor(TAIL, *columns, *_conditions(wanted), limit, prefetch=ROWS_AT_ONCE):
            yield _entry(row, places[row[0]])


async def between(connection: Any, part: Stretch, wanted: Wanted) -> AsyncGenerator[Entry]:
    """Yield the wanted events of one part of the log, page by page."""
    after = part.after_seq
    while True:
        rows = await connection.fetch(
            NEXT, part.log_partition, after, part.last_seq, *_conditions(wanted), ROWS_AT_ONCE
        )
        for row in rows:
            yield _entry(row, part)
        if len(rows) < ROWS_AT_ONCE:
            return
        after = rows[-1]["log_seq"]


def _conditions(wanted: Wanted) -> tuple[Any, ...]:
    types = None if wanted.event_types is None else list(wanted.event_types)
    return wanted.entity_id, types, wanted.since, wanted.until


def _entry(row: Any, part: Stretch) -> Entry:
    return Entry(part.topic, part.partition, *tuple(row)[1:])


class Reader:
    """Decodes what the log holds, by the schemas that the log itself keeps: no registry is needed."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._codec = Codec()
        self._looked_up: set[int] = set()

    async def event(self, entry: Entry) -> Event | Park:
        """Return an entry's event, or why it can't be read."""
        if entry.schema_fingerprint not in self._looked_up:
            self._looked_up.add(entry.schema_fingerprint)
            schema = await self._connection.fetchval(SCHEMA, entry.schema_fingerprint)
            if schema is not None:
                self._codec.learn(schema)
        try:
            return self._codec.decode_body(entry.schema_fingerprint, entry.payload)
        except Park as park:
            return park
