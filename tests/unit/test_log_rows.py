"""The log's rows as COPY takes them, held against asyncpg's own encoding of single values and against Postgres."""

from datetime import UTC, datetime, timedelta
from struct import unpack_from
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from sitelog.projections._binary import BEGIN, END
from sitelog.projections._items import Item
from sitelog.projections._log_rows import COLUMNS, LogEntry, Packer, headers_from, headers_json
from sitelog.streams._event import Event
from sitelog.streams._fields import TIMESTAMP_END, TIMESTAMP_MIN
from sitelog.streams.events import SiteDeleted

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
SMALLINT, BIGINT = ">h", ">q"
TIMES = st.datetimes(TIMESTAMP_MIN.replace(tzinfo=None), TIMESTAMP_END.replace(tzinfo=None) - timedelta.resolution)


def values(rows: bytes) -> list[list[bytes | None]]:
    """Read the rows by COPY's rules: a count of values, each after its length, -1 for null."""
    assert rows.startswith(BEGIN)
    at, found = len(BEGIN), []
    while rows[at : at + 2] != END:
        row: list[bytes | None] = []
        (count,) = unpack_from(SMALLINT, rows, at)
        at += 2
        for _ in range(count):
            (length,) = unpack_from(">i", rows, at)
            at += 4
            row.append(None if length < 0 else rows[at : at + length])
            at += max(length, 0)
        found.append(row)
    assert at + 2 == len(rows)
    return found


def number(form: str, value: bytes | None) -> int:
    assert value is not None
    (found,) = unpack_from(form, value)
    return int(found)


def time(value: bytes | None) -> datetime:
    return EPOCH + timedelta(microseconds=number(BIGINT, value))


def packed(log_partition: int, entries: list[LogEntry], ingest_time: datetime) -> bytes:
    return BEGIN + Packer(log_partition, ingest_time).packed(entries) + END


def item(event: Event, offset: int, appended: datetime, headers: Any = (), body: bytes = b"body") -> Item:
    return Item(offset, appended, b"key", b"value", headers, event.entity_id, event, -5, body, None)


@given(TIMES, TIMES, TIMES, st.text(min_size=1, max_size=100).filter(lambda text: "\0" not in text), st.binary())
def test_every_value_comes_back(
    happened: datetime, appended: datetime, ingested: datetime, site_id: str, body: bytes
) -> None:
    happened, appended, ingested = (one.replace(tzinfo=UTC) for one in (happened, appended, ingested))
    event = SiteDeleted(site_id=site_id, event_timestamp=happened)
    (row,) = values(packed(3, [(2**40, item(event, 2**41, appended, body=body))], ingested))
    found = dict(zip(COLUMNS, row, strict=True))
    assert number(SMALLINT, found["log_partition"]) == 3
    assert (number(BIGINT, found["log_seq"]), number(BIGINT, found["kafka_offset"])) == (2**40, 2**41)
    assert found["event_id"] == UUID(event.event_id).bytes
    assert (found["event_type"], found["entity_id"]) == (b"site_deleted", site_id.encode())
    assert [time(found[name]) for name in ("event_time", "append_time", "ingest_time")] == [
        happened,
        appended,
        ingested,
    ]
    assert number(BIGINT, found["schema_fingerprint"]) == -5
    assert (found["headers"], found["payload"]) == (None, body)


def test_rows_of_several_events_keep_their_order_and_their_own_times() -> None:
    events = [SiteDeleted(site_id=f"site-{n}") for n in range(3)]
    times = [EPOCH + timedelta(hours=hours) for hours in (9, 9, 8)]
    entries = [(n + 1, item(event, n, at)) for n, (event, at) in enumerate(zip(events, times, strict=True))]
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in values(packed(1, entries, EPOCH))]
    assert [(number(BIGINT, row["log_seq"]), row["entity_id"], time(row["append_time"])) for row in rows] == [
        (1, b"site-0", times[0]),
        (2, b"site-1", times[1]),
        (3, b"site-2", times[2]),
    ]


def test_headers_come_back() -> None:
    headers = [("trace", b"\x00\xff"), ("trace", b"second"), ("empty", b"")]
    (row,) = values(packed(1, [(1, item(SiteDeleted(site_id="a"), 0, EPOCH, headers))], EPOCH))
    text = dict(zip(COLUMNS, row, strict=True))["headers"]
    assert text is not None
    assert headers_from(text.decode()) == headers
    assert headers_from(headers_json(())) == []
