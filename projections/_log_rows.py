"""The log's rows in the binary format of COPY: asyncpg's own way there, value by value, takes four times as long.

Source: PostgreSQL 18, "COPY", Binary Format; each type as its binary receive function takes it.
"""

import base64
from collections.abc import Sequence
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

# Each value follows its length.
_FIRST: Final = Struct(">hihiqiqi16s")
_TIMES: Final = Struct(">iqiqiqiq")
_LENGTH: Final = Struct(">i")

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def packed(log_partition: int, entries: Sequence[LogEntry], ingest_time: datetime) -> bytes:
    """Return the rows of these events, in the order of COLUMNS."""
    first, times, length = _FIRST.pack, _TIMES.pack, _LENGTH.pack
    ingested = micros(ingest_time)
    appended_at, appended = ingest_time, ingested
    parts = [BEGIN]
    for log_seq, item in entries:
        event = item.event
        assert event is not None  # noqa: S101 - what is in the log has been decoded
        if item.append_time is not appended_at:  # events that came together were appended at one time
            appended_at, appended = item.append_time, micros(item.append_time)
        event_type, entity_id = event.event_type.encode(), item.entity_id.encode()
        parts += (
            first(
                len(COLUMNS),
                2,
                log_partition,
                8,
                log_seq,
                8,
                item.offset,
                16,
                bytes.fromhex(event.event_id.replace("-", "")),
            ),
            length(len(event_type)),
            event_type,
            length(len(entity_id)),
            entity_id,
            times(8, micros(event.event_timestamp), 8, appended, 8, ingested, 8, item.fingerprint),
            headers(item.headers) if item.headers else NULL,
            length(len(item.body)),
            item.body,
        )
    parts.append(END)
    return b"".join(parts)


def micros(at: datetime) -> int:
    """Return a time as Postgres keeps it: microseconds since 2000."""
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def headers(of_record: Sequence[tuple[str, bytes]]) -> bytes:
    """Return record headers as a value: JSON, or null where there are none."""
    text = headers_json(of_record)
    if text is None:
        return NULL
    value = text.encode()
    return _LENGTH.pack(len(value)) + value


def headers_json(of_record: Sequence[tuple[str, bytes]]) -> str | None:
    """Return record headers as JSON, values in base64; None where there are none."""
    if not of_record:
        return None
    return orjson.dumps([[name, base64.b64encode(value or b"").decode()] for name, value in of_record]).decode()


def headers_from(text: str | None) -> list[tuple[str, bytes]]:
    """Return what `headers_json` was given."""
    return [] if text is None else [(name, base64.b64decode(value)) for name, value in orjson.loads(text)]
