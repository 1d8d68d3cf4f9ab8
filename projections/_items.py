"""Records, decoded: each either an event of a known entity or a reason to put it aside."""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from sitelog.streams._batch import Record
from sitelog.streams._event import Event
from sitelog.streams._fields import ID_CHARACTERS_MAX
from sitelog.streams.codec import Codec
from sitelog.streams.errors import Park

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Item:
    """One record. `event` is None exactly where `problem` says why.

    `entity_id` is the record's key where there is one, else the id that the event names, else ''.
    """

    # No dataclass: the compiler can't see into its __init__, and this is made for every record.
    __slots__ = (
        "append_time",
        "body",
        "entity_id",
        "event",
        "fingerprint",
        "headers",
        "key",
        "offset",
        "parked_id",
        "problem",
        "value",
    )

    def __init__(  # noqa: PLR0917 - by name it would cost more
        self,
        offset: int,
        append_time: datetime,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]],
        entity_id: str,
        event: Event | None,
        fingerprint: int,
        body: bytes,
        problem: Park | None,
        parked_id: int | None = None,
    ) -> None:
        self.offset = offset
        self.append_time = append_time
        self.key = key
        self.value = value
        self.headers = headers
        self.entity_id = entity_id
        self.event = event
        self.fingerprint = fingerprint
        self.body = body
        self.problem = problem
        self.parked_id = parked_id


def decode(records: Iterable[Record], topic: str, codec: Codec) -> list[Item]:
    """Decode the records of one partition; one that can't be read becomes an item with a problem."""
    items: list[Item] = []
    milliseconds, append_time = 0, EPOCH
    untimely: Park | None = None
    for record in records:
        if record.timestamp != milliseconds:  # records that came together were appended at one time
            milliseconds = record.timestamp
            append_time, untimely = _appended_at(milliseconds)
        key, value = record.key, record.value
        entity_id, event, fingerprint, body, problem = _read(key, value, topic, codec)
        if untimely is not None:
            event, problem = None, problem or untimely
        items.append(
            Item(record.offset, append_time, key, value, record.headers, entity_id, event, fingerprint, body, problem)
        )
    return items


def _appended_at(milliseconds: int) -> tuple[datetime, Park | None]:
    """Return when a record was appended, or where that is no time, 1970 and why: a producer may send any number."""
    try:
        return EPOCH + timedelta(milliseconds=milliseconds), None
    except OverflowError:
        expected = "expected milliseconds since 1970, of the years 1 to 9999, as the record's timestamp"
        return EPOCH, Park("invalid_timestamp", f"{expected}, got {milliseconds}")


def reread(item: Item, topic: str, codec: Codec) -> Item:
    """Decode an item that was put aside, again: with today's schemas and code it may be fine."""
    _, item.event, item.fingerprint, item.body, item.problem = _read(item.key, item.value, topic, codec)
    return item


def _read(
    key: bytes | None, value: bytes | None, topic: str, codec: Codec
) -> tuple[str, Event | None, int, bytes, Park | None]:
    entity_id, problem = _entity_of(key)
    try:
        event, fingerprint, body = codec.read(value)
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
    own_id = event.__dict__[event.key_field]  # as `entity_id`, without a call
    if own_id != entity_id:
        expected = f"{event.key_field} {own_id!r}"
        return Park("key_differs", f"expected the event's {expected} as the record's key, got {entity_id!r}")
    if event.topic != topic:
        return Park("wrong_topic", f"expected {event.event_type} in the topic {event.topic}, got it in {topic}")
    return None
