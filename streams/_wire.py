"""Avro's binary form, read by hand: strict, without a copy too many, and as fast as plain Python goes.

Each reader takes the body, a position in it and the name of the field, and returns the value and the
position after it. Lengths are never trusted: a slice ends where the body ends, so that a corrupt length
allocates nothing, and reading behind the end is an IndexError, which `codec` calls truncated.
Source of the format: Avro 1.12 specification, "Binary Encoding".
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from math import isfinite
from struct import Struct
from typing import Final, NoReturn, TypeVar

from sitelog.streams._fields import ID_CHARACTERS_MAX, TIMESTAMP_END, TIMESTAMP_MIN, geojson_problem, is_time_of_day
from sitelog.streams.errors import Park

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MICROS_MIN: Final = (TIMESTAMP_MIN - EPOCH) // _MICROSECOND
_MICROS_END: Final = (TIMESTAMP_END - EPOCH) // _MICROSECOND
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_DAYS_MIN: Final = date.min.toordinal() - _EPOCH_DAY
_DAYS_MAX: Final = date.max.toordinal() - _EPOCH_DAY
_INT_END: Final = 2**31
_DOUBLE: Final = Struct("<d")
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# A varint of eight bytes, of which seven carry the continuation bit: what these bits add up to.
_CONTINUATION_BITS: Final = sum(128 << (7 * index) for index in range(7))

_T = TypeVar("_T")
Read = tuple[_T, int]


class Undecodable(Park):
    """This value is no event that we know; `reason` says in which way.

    It is one of empty, wrong_bytes, unknown_schema, truncated, invalid_value.
    """


def wrong_bytes(field: str, expected: str, actual: object) -> NoReturn:
    """Raise for bytes that no Avro writer writes."""
    raise Undecodable("wrong_bytes", f"{field}: expected {expected}, got {actual}")


def invalid(field: str, expected: str, actual: object) -> NoReturn:
    """Raise for a value that Avro allows and the contract doesn't."""
    raise Undecodable("invalid_value", f"{field}: expected {expected}, got {actual!r}"[:500])


def wrong_branch(field: str, branch: int) -> NoReturn:
    """Raise for a nullable field that is marked as neither null nor a value."""
    wrong_bytes(field, "0 for null or 2 for a value", branch)


def trailing(body: bytes, at: int) -> NoReturn:
    """Raise for an event that doesn't end where its bytes end."""
    if at > len(body):
        raise IndexError
    wrong_bytes("the end", f"{at} bytes", len(body))


def long(body: bytes, at: int, field: str) -> Read[int]:
    """Read a zigzag varint of at most 64 bits."""
    number = body[at]
    at += 1
    if number >= 128:  # noqa: PLR2004 - the continuation bit
        number &= 127
        shift = 7
        while (byte := body[at]) >= 128:  # noqa: PLR2004
            number |= (byte & 127) << shift
            shift += 7
            at += 1
            if shift > 63:  # noqa: PLR2004 - the tenth byte is the last of 64 bits
                wrong_bytes(field, "a number of 64 bits", "a longer one")
        number |= byte << shift
        at += 1
        if number >> 64:
            wrong_bytes(field, "a number of 64 bits", "a larger one")
    return (number >> 1) ^ -(number & 1), at


def octets(body: bytes, at: int, field: str) -> Read[bytes]:
    """Read bytes after their length."""
    length, at = long(body, at, field)
    if length < 0:
        wrong_bytes(field, "a length", length)
    end = at + length
    if end > len(body):
        raise IndexError
    return body[at:end], end


def text(body: bytes, at: int, field: str) -> Read[str]:
    """Read UTF-8 without NUL, which Postgres's text can't hold."""
    length = body[at]
    if length & 0x81:  # negative, or longer than one byte can say
        raw, end = octets(body, at, field)
        value = raw.decode()
    else:
        at += 1
        end = at + (length >> 1)
        if end > len(body):
            raise IndexError
        value = body[at:end].decode()
    if "\0" in value:
        invalid(field, "text without the NUL character", value)
    return value, end


def entity_id(body: bytes, at: int, field: str) -> Read[str]:
    """Read an id of 1 to 100 characters."""
    value, at = text(body, at, field)
    if not 0 < len(value) <= ID_CHARACTERS_MAX:
        invalid(field, f"1 to {ID_CHARACTERS_MAX} characters", f"{len(value)}: {value}")
    return value, at


def uuid(body: bytes, at: int, field: str) -> Read[str]:
    """Read a UUID; capital letters become small ones, so that one id has one spelling."""
    value, at = text(body, at, field)
    if _UUID.fullmatch(value) is None:
        value = value.lower()
        if _UUID.fullmatch(value) is None:
            invalid(field, "a UUID of 36 characters", value)
    return value, at


def timestamp(body: bytes, at: int, field: str) -> Read[datetime]:
    """Read microseconds since 1970, from the year 2000 until 2100: these always take eight bytes."""
    try:
        a, b, c, d, e, f, g, h = body[at : at + 8]
    except ValueError:
        raise IndexError from None
    micros = a + (b << 7) + (c << 14) + (d << 21) + (e << 28) + (f << 35) + (g << 42) + (h << 49) - _CONTINUATION_BITS
    # Fewer or more bytes than eight come out as nonsense here, and go the slow way to the right complaint.
    if h > 127 or a & b & c & d & e & f & g < 128 or micros & 1 or not _MICROS_MIN <= micros >> 1 < _MICROS_END:  # noqa: PLR2004
        number, _ = long(body, at, field)
        invalid(field, f"microseconds from {TIMESTAMP_MIN:%Y} until {TIMESTAMP_END:%Y}", number)
    seconds, micros = divmod(micros >> 1, 1_000_000)
    return EPOCH + timedelta(0, seconds, micros), at + 8


def day(body: bytes, at: int, field: str) -> Read[date]:
    """Read days since 1970, from year 1 to 9999."""
    days, at = long(body, at, field)
    if not _DAYS_MIN <= days <= _DAYS_MAX:
        invalid(field, f"{_DAYS_MIN} to {_DAYS_MAX} days since 1970", days)
    return date.fromordinal(days + _EPOCH_DAY), at


def int_(body: bytes, at: int, field: str) -> Read[int]:
    """Read a number of 32 bits."""
    number, at = long(body, at, field)
    if not -_INT_END <= number < _INT_END:
        wrong_bytes(field, "a number of 32 bits", number)
    return number, at


def int_count(body: bytes, at: int, field: str) -> Read[int]:
    """Read a number of 32 bits that isn't negative."""
    number, at = int_(body, at, field)
    if number < 0:
        invalid(field, "0 or more", number)
    return number, at


def long_count(body: bytes, at: int, field: str) -> Read[int]:
    """Read a number of 64 bits that isn't negative."""
    number, at = long(body, at, field)
    if number < 0:
        invalid(field, "0 or more", number)
    return number, at


def double(body: bytes, at: int, field: str) -> Read[float]:
    """Read a finite number."""
    end = at + 8
    if end > len(body):
        raise IndexError
    number: float = _DOUBLE.unpack_from(body, at)[0]
    if not isfinite(number):
        invalid(field, "a finite number", number)
    return number, end


def latitude(body: bytes, at: int, field: str) -> Read[float]:
    """Read degrees north."""
    number, at = double(body, at, field)
    if not -90 <= number <= 90:  # noqa: PLR2004
        invalid(field, "-90 to 90", number)
    return number, at


def longitude(body: bytes, at: int, field: str) -> Read[float]:
    """Read degrees east."""
    number, at = double(body, at, field)
    if not -180 <= number <= 180:  # noqa: PLR2004
        invalid(field, "-180 to 180", number)
    return number, at


def time_of_day(body: bytes, at: int, field: str) -> Read[str]:
    """Read HH:MM."""
    value, at = text(body, at, field)
    if not is_time_of_day(value):
        invalid(field, "HH:MM from 00:00 to 24:00", value)
    return value, at


def geojson(body: bytes, at: int, field: str) -> Read[str]:
    """Read the text of a GeoJSON object."""
    value, at = text(body, at, field)
    problem = geojson_problem(value)
    if problem is not None:
        invalid(field, "a GeoJSON object as JSON text", problem)
    return value, at


def decimal(body: bytes, at: int, field: str, precision: int, scale: int) -> Read[Decimal]:
    """Read a decimal; one with more digits than `precision` is refused, never rounded."""
    raw, at = octets(body, at, field)
    unscaled = int.from_bytes(raw, signed=True)
    if not -(10**precision) < unscaled < 10**precision:
        invalid(field, f"at most {precision} digits", f"{len(raw)} bytes")
    return Decimal(unscaled).scaleb(-scale), at


def symbol(body: bytes, at: int, field: str, symbols: tuple[str, ...]) -> Read[str]:
    """Read one of an enum's symbols."""
    index, at = long(body, at, field)
    if not 0 <= index < len(symbols):
        wrong_bytes(field, f"0 to {len(symbols) - 1}", index)
    return symbols[index], at


def array(body: bytes, at: int, field: str, item: Callable[[bytes, int, str], Read[_T]]) -> Read[tuple[_T, ...]]:
    """Read items, each of which takes a byte at least."""
    items: list[_T] = []
    count, at = _block(body, at, field)
    while count:
        for _ in range(count):
            value, at = item(body, at, field)
            items.append(value)
        count, at = _block(body, at, field)
    return tuple(items), at


def text_map(body: bytes, at: int, field: str) -> Read[dict[str, str]]:
    """Read texts by name; of a name that comes twice the last one counts."""
    entries: dict[str, str] = {}
    count, at = _block(body, at, field)
    while count:
        for _ in range(count):
            name, at = text(body, at, field)
            entries[name], at = text(body, at, field)
        count, at = _block(body, at, field)
    return entries, at


def changed_fields(body: bytes, at: int, field: str, names: Mapping[bytes, _T]) -> Read[tuple[_T, ...]]:
    """Read field names: at least one, each known and there once."""
    changed: list[_T] = []
    count, at = _block(body, at, field)
    while count:
        for _ in range(count):
            raw, at = octets(body, at, field)
            name = names.get(raw)
            if name is None:
                expected = ", ".join(str(name) for name in names.values())
                invalid(field, f"one of {expected}", raw.decode(errors="replace"))
            if name in changed:
                invalid(field, "each field once", name)
            changed.append(name)
        count, at = _block(body, at, field)
    if not changed:
        invalid(field, "at least one field", "none")
    return tuple(changed), at


def not_before(field: str, value: date | None, first: str, earliest: date | None) -> None:
    """Refuse a period that ends before it begins."""
    if value is not None and earliest is not None and value < earliest:
        invalid(field, f"a day not before {first}, which is {earliest}", str(value))


def _block(body: bytes, at: int, field: str) -> Read[int]:
    """Read the number of items of a block; a negative one is followed by the block's size, of no use here."""
    count, at = long(body, at, field)
    if count < 0:
        count = -count
        _, at = long(body, at, field)
    if count > len(body) - at:  # an item takes a byte at least: don't start what can't end
        raise IndexError
    return count, at
