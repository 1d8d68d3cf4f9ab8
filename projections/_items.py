"""Records, decoded: each either an event of a known entity or a reason to put it aside."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sitelog.streams._batch import Record
from sitelog.streams._event import Event
from sitelog.streams._fields import ID_CHARACTERS_MAX
from sitelog.streams.codec import Codec
from sitelog.streams.errors import Park

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Item:
    """One record. `event` is None exactly where `problem` says why.

    `entity_id` is the record's key where there is one, else the id that the event names, else ''.
    """

    offset: int
    append_time: datetime
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    entity_id: str
    event: Event | None
    fingerprint: int
    body: bytes
    problem: Park | None
    parked_id: int | None = None


def decode(records: Iterable[Record], topic: str, codec: Codec) -> list[Item]:
    """Decode the records of one partition; one that can't be read becomes an item with a problem."""
    items: list[Item] = []
    milliseconds, append_time = 0, EPOCH
    for record in records:
        if record.timestamp != milliseconds:  # records that came together were appended at one time
            milliseconds = record.timestamp
            append_time = EPOCH + timedelta(milliseconds=milliseconds)
        key, value = record.key, record.value
        entity_id, event, fingerprint, body, problem = _read(key, value, topic, codec)
        items.append(
            Item(record.offset, append_time, key, value, record.headers, entity_id, event, fingerprint, body, problem)
        )
    return items


def reread(item: Item, topic: str, codec: Codec) -> Item:
    """Decode an item that was put aside, again: with today's schemas and code it may be fine."""
    _, item.event, item.fingerprint, item.body, item.problem = _read(item.key, item.value, topic, codec)
    return item


def _read(
    key: bytes | None, value: bytes | None, topic: str, codec: Codec
) -> tuple[str, Event | None, int, bytes, Park | None]:
    entity_id, problem = _entity_of(key)
    try:
        event, fingerprint, body = codec.decode(value or b"")
    except Park as park:
        return entity_id, None, 0, b"", park
    if key is None:
        entity_id = event.entity_id
    problem = problem or _misplaced(event, entity_id, topic)
    return entity_id, None if problem else event, fingerprint, body, problem


def _entity_of(key: bytes | None) -> tuple[str, Park | None]:
    if key is None:
        return "", Park("missing_key", "expected the entity's id as the record's key, got no key")
    try:
        entity_id = key.decode()
    except UnicodeDecodeError:
        return _hex(key), Park("invalid_key", f"expected the entity's id in UTF-8 as key, got {_hex(key)}")
    if "\x00" in entity_id:
        return _hex(key), Park("invalid_key", "expected a key without the NUL character")
    if len(entity_id) > ID_CHARACTERS_MAX:
        problem = Park("invalid_key", f"expected a key of 1 to {ID_CHARACTERS_MAX} characters, got {len(entity_id)}")
        # Still one name for one entity, but one that an index can hold.
        return f"{entity_id[:50]}…{hashlib.sha256(key).hexdigest()[:16]}", problem
    return entity_id, None


def _hex(key: bytes) -> str:
    return f"0x{key.hex()}" if len(key) <= ID_CHARACTERS_MAX else f"0x…{hashlib.sha256(key).hexdigest()[:16]}"


def _misplaced(event: Event, entity_id: str, topic: str) -> Park | None:
    if event.entity_id != entity_id:
        expected = f"{event.key_field} {event.entity_id!r}"
        return Park("key_differs", f"expected the event's {expected} as the record's key, got {entity_id!r}")
    if event.topic != topic:
        return Park("wrong_topic", f"expected {event.event_type} in the topic {event.topic}, got it in {topic}")
    return None
