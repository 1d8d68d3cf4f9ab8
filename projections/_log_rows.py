"""The log's rows in the binary format of COPY: asyncpg's own way there, value by value, takes four times as long."""

import base64
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from struct import Struct
from typing import Final

import orjson

from sitelog.projections._binary import micros, sized
from sitelog.projections._items import Item
from sitelog.streams._event import Event

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

_EPOCH_SECONDS: Final = datetime(2000, 1, 1, tzinfo=UTC).timestamp()

# Each value after its length: count of columns, log_partition | log_seq | kafka_offset | event_id | event_type |
# entity_id | event_time | append_time, ingest_time, schema_fingerprint; then headers, if any, and payload.
_HEAD: Final = Struct(">hih")
_TAIL: Final = Struct(">iqiqiq")

Pack = Callable[..., bytes]


class Packer:
    """Packs a log partition's rows, in the order of COLUMNS, to stand between BEGIN and END."""

    def __init__(self, log_partition: int, ingest_time: datetime) -> None:
        self._head = _HEAD.pack(len(COLUMNS), 2, log_partition)
        self._ingested = micros(ingest_time)
        self._types: dict[type[Event], bytes] = {}
        self._packs: dict[tuple[int, int], Pack] = {}

    def packed(self, entries: Sequence[LogEntry]) -> bytes:
        """Return the rows of these events."""
        head = self._head
        parts: list[bytes] = []
        appended_at, fingerprint, tail = None, 0, b""
        for log_seq, item in entries:
            event = item.event
            assert event is not None  # noqa: S101 - what is in the log has been decoded
            if item.append_time is not appended_at or item.fingerprint != fingerprint:
                appended_at, fingerprint = item.append_time, item.fingerprint
                tail = self._tail(appended_at, fingerprint)
            event_type = self._types.get(type(event)) or self._type(event)
            entity_id, body = item.entity_id.encode(), item.body
            sizes = (len(event_type), len(entity_id))
            pack = self._packs.get(sizes) or self._pack(sizes)
            values = event.__dict__  # an attribute costs more
            event_id: str = values["event_id"]
            event_time: datetime = values["event_timestamp"]
            row = pack(
                head,
                8,
                log_seq,
                8,
                item.offset,
                16,
                bytes.fromhex(event_id.replace("-", "")),
                event_type,
                len(entity_id),
                entity_id,
                8,
                int((event_time.timestamp() - _EPOCH_SECONDS) * 1_000_000 + 0.5),
                tail,
                -1,
                len(body),
            )
            if item.headers:
                row = row[:-8] + sized(headers_json(item.headers)) + row[-4:]
            parts.append(row)
            parts.append(body)
        return b"".join(parts)

    def _type(self, event: Event) -> bytes:
        value = self._types[type(event)] = sized(event.event_type)
        return value

    def _tail(self, append_time: datetime, fingerprint: int) -> bytes:
        return _TAIL.pack(8, micros(append_time), 8, self._ingested, 8, fingerprint)

    def _pack(self, sizes: tuple[int, int]) -> Pack:
        event_type, entity_id = sizes
        pack = self._packs[sizes] = Struct(f">8siqiqi16s{event_type}si{entity_id}siq36sii").pack
        return pack


def headers_json(of_record: Sequence[tuple[str, bytes]]) -> str | None:
    """Return record headers as JSON, values in base64; None where there are none."""
    if not of_record:
        return None
    return orjson.dumps([[name, base64.b64encode(value or b"").decode()] for name, value in of_record]).decode()


def headers_from(text: str | None) -> list[tuple[str, bytes]]:
    """Return what `headers_json` was given."""
    return [] if text is None else [(name, base64.b64decode(value)) for name, value in orjson.loads(text)]
