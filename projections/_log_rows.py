"""The log's rows in the binary format of COPY: asyncpg's own way there, value by value, takes four times as long.

Source: PostgreSQL 18, "COPY", Binary Format; each type as its binary receive function takes it.
"""

import base64
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Final

import orjson

from sitelog.projections._items import Item

COLUMNS: Final = (
    "log_partition",
    "log_seq",
    "kafka_offset",
    "event_id",
    "event_type",
    "entity_id",
    "event_time",
    "append_time",
    "ingest_time",
    "schema_fingerprint",
    "headers",
    "payload",
)

LogEntry = tuple[int, Item]
"""A log seq, and the event that got it."""

BEGIN: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END: Final = b"\xff\xff"
NULL: Final = b"\xff\xff\xff\xff"

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_EPOCH_SECONDS: Final = _EPOCH.timestamp()
_MICROSECOND: Final = timedelta(microseconds=1)

Pack = Callable[..., bytes]


def packed(log_partition: int, entries: Sequence[LogEntry], ingest_time: datetime) -> bytes:
    """Return the rows of these events, in the order of COLUMNS."""
    ingested = micros(ingest_time)
    appended_at, appended = ingest_time, ingested
    rows: dict[tuple[int, int], Pack] = {}
    parts = [BEGIN]
    for log_seq, item in entries:
        event = item.event
        assert event is not None  # noqa: S101 - what is in the log has been decoded
        if item.append_time is not appended_at:  # events that came together were appended at one time
            appended_at = item.append_time
            appended = micros(appended_at)
        event_type, entity_id, body = event.event_type.encode(), item.entity_id.encode(), item.body
        sizes = (len(event_type), len(entity_id))
        row = rows.get(sizes)
        if row is None:
            row = rows[sizes] = _row(sizes[0], sizes[1])
        happened = int((event.event_timestamp.timestamp() - _EPOCH_SECONDS) * 1_000_000 + 0.5)
        parts.append(
            row(
                len(COLUMNS),
                2,
                log_partition,
                8,
                log_seq,
                8,
                item.offset,
                16,
                bytes.fromhex(event.event_id.replace("-", "")),
                sizes[0],
                event_type,
                sizes[1],
                entity_id,
                8,
                happened,
                8,
                appended,
                8,
                ingested,
                8,
                item.fingerprint,
            )
        )
        parts.append(headers(item.headers) if item.headers else NULL)
        parts.append(len(body).to_bytes(4))
        parts.append(body)
    parts.append(END)
    return b"".join(parts)


def _row(type_bytes: int, entity_bytes: int) -> Pack:
    """Return what packs a row up to its headers, each value after its length."""
    return Struct(f">hihiqiqi16si{type_bytes}si{entity_bytes}siqiqiqiq").pack


def micros(at: datetime) -> int:
    """Return a time as Postgres keeps it: microseconds since 2000."""
    return (at - _EPOCH) // _MICROSECOND


def headers(of_record: Sequence[tuple[str, bytes]]) -> bytes:
    """Return record headers as a value: JSON, or null where there are none."""
    text = headers_json(of_record)
    if text is None:
        return NULL
    value = text.encode()
    return len(value).to_bytes(4) + value


def headers_json(of_record: Sequence[tuple[str, bytes]]) -> str | None:
    """Return record headers as JSON, values in base64; None where there are none."""
    if not of_record:
        return None
    return orjson.dumps([[name, base64.b64encode(value or b"").decode()] for name, value in of_record]).decode()


def headers_from(text: str | None) -> list[tuple[str, bytes]]:
    """Return what `headers_json` was given."""
    return [] if text is None else [(name, base64.b64decode(value)) for name, value in orjson.loads(text)]
