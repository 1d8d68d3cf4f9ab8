"""The append-only log: what was applied, in its order, as it came."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from sitelog.projections._copy import PACKED_AT_ONCE, copy
from sitelog.projections._insert import Filled, Insert, columns_of
from sitelog.projections._log_rows import COLUMNS, LogEntry, Packer, headers_json
from sitelog.projections._pieces import pieces
from sitelog.streams.errors import Halt

SEEN_KEYS: Final = ("event_log_event_id_key", "parked_event_record_key")

KNOWN: Final = "SELECT event_id::text FROM sitelog.event_log WHERE event_id = ANY($1::uuid[])"

# The first event is taken whatever it weighs. Its length is known without reading it from where large values are.
READ: Final = """
SELECT log_seq, kafka_offset, append_time, schema_fingerprint, payload
FROM (
    SELECT *, sum(octet_length(payload)) OVER (ORDER BY log_seq) - octet_length(payload) AS bytes_before
    FROM sitelog.event_log
    WHERE log_partition = $1 AND log_seq > $2 AND log_seq <= $3
    ORDER BY log_seq
    LIMIT $4
) AS l
WHERE bytes_before < $5
ORDER BY log_seq
"""

SCHEMAS: Final = """
INSERT INTO sitelog.avro_schema (fingerprint, name, version, schema)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::jsonb[])
ON CONFLICT (fingerprint) DO NOTHING
"""


INSERT: Final = Insert(
    "sitelog.event_log",
    COLUMNS,
    (
        "smallint",
        "bigint",
        "bigint",
        "uuid",
        "text",
        "text",
        "timestamptz",
        "timestamptz",
        "timestamptz",
        "bigint",
        "json",
        "bytea",
    ),
)


@dataclass(slots=True)
class Logged:
    """One event as the log has it; `payload` is Avro without framing."""

    log_seq: int
    kafka_offset: int
    append_time: datetime
    schema_fingerprint: int
    payload: bytes


Run = tuple[int, Sequence[LogEntry]]
"""A log partition, and what is appended to it."""


async def append(connection: Any, runs: Sequence[Run], ingest_time: datetime) -> None:
    """Append events to the log. Raises UniqueViolationError where one is in it already."""
    if any(entries for _, entries in runs):
        await copy(connection, "sitelog", "event_log", COLUMNS, _packed(runs, ingest_time))


def _packed(runs: Sequence[Run], ingest_time: datetime) -> Iterator[bytes]:
    for log_partition, entries in runs:
        packer = Packer(log_partition, ingest_time)
        yield from map(packer.packed, pieces(entries, PACKED_AT_ONCE))


def filled(runs: Sequence[Run], ingest_time: datetime) -> Filled:
    """Return the events as an insert, for few of them."""
    rows = [
        (
            log_partition,
            log_seq,
            item.offset,
            item.event.event_id,
            item.event.event_type,
            item.entity_id,
            item.event.event_timestamp,
            item.append_time,
            ingest_time,
            item.fingerprint,
            headers_json(item.headers),
            item.body,
        )
        for log_partition, entries in runs
        for log_seq, item in entries
        if item.event is not None  # what is in the log has been decoded
    ]
    return INSERT, columns_of(rows)


def seen_before(error: BaseException) -> bool:
    """Tell whether a write failed because an event is in the log already, or a record among those put aside."""
    return isinstance(error, asyncpg.UniqueViolationError) and error.constraint_name in SEEN_KEYS


async def known(connection: Any, event_ids: Sequence[str]) -> set[str]:
    """Return those of the event ids that are in the log."""
    return {row[0] for row in await connection.fetch(KNOWN, event_ids)}


async def read(
    connection: Any, log_partition: int, after: int, until: int, *, records_max: int, bytes_max: int
) -> list[Logged]:
    """Return the first events after the log seq `after` and up to `until`, in their order and within the bounds.

    Raises Halt where the log has a hole.
    """
    rows = await connection.fetch(READ, log_partition, after, until, records_max, bytes_max)
    for number, row in enumerate(rows, after + 1):
        if row[0] != number:
            raise Halt(f"log partition {log_partition} has a hole: expected log seq {number}, found {row[0]}")
    if after < until and not rows:
        raise Halt(f"log partition {log_partition} has a hole: expected events up to {until}, found none after {after}")
    return [Logged(*row) for row in rows]


async def store_schemas(connection: Any, schemas: Iterable[tuple[int, str, str, str]]) -> None:
    """Keep writer schemas, (fingerprint, name, version, JSON), so that the log can be read by itself."""
    rows = list(schemas)
    if rows:
        await connection.execute(SCHEMAS, *(list(column) for column in zip(*rows, strict=True)))
