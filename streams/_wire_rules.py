"""The rest of reading: logical types, and the contract's rules that Avro has no words for.

A producer's event passes the same rules in `_fields`; here they hold for what any other client has written.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import MAX_PREC, Context, Decimal
from typing import Any, Final, TypeVar

from mypy_extensions import i64

from sitelog.streams._fields import ID_CHARACTERS_MAX, TIMESTAMP_END, TIMESTAMP_MIN, geojson_problem, is_time_of_day
from sitelog.streams._wire import Read, block, double, int_, invalid, long, octets, text

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
EXACT: Final = Context(prec=MAX_PREC)
"""For decimals: the caller's own context may round them."""
_MICROSECOND: Final = timedelta(microseconds=1)
# As zigzag has them: doubled, the lowest bit is the sign.
_DOUBLED_MIN: Final[i64] = (TIMESTAMP_MIN - EPOCH) // _MICROSECOND * 2
_DOUBLED_END: Final[i64] = (TIMESTAMP_END - EPOCH) // _MICROSECOND * 2
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_DAYS_MIN: Final = date.min.toordinal() - _EPOCH_DAY
_DAYS_MAX: Final = date.max.toordinal() - _EPOCH_DAY
# Digits become zeros, so that a comparison shows the form.
_UUID_FORM: Final = bytes.maketrans(b"0123456789abcdef", b"0" * 16)
_UUID_ZEROS: Final = b"00000000-0000-0000-0000-000000000000"
_FOUR_NULLS: Final = bytes(4)
_from_seconds: Final = datetime.fromtimestamp

_T = TypeVar("_T")


def entity_id(body: bytes, at: int, field: str) -> Read[str]:
    """Read an id of 1 to 100 characters."""
    value, at = text(body, at, field)
    if not 0 < len(value) <= ID_CHARACTERS_MAX:
        invalid(field, f"1 to {ID_CHARACTERS_MAX} characters", f"{len(value)}: {value}")
    return value, at


def uuid(body: bytes, at: int, field: str) -> Read[str]:
    """Read a UUID; capital letters become small ones, so that one id has one spelling."""
    end = at + 37
    raw = body[at + 1 : end]
    if body[at] == 72 and raw.translate(_UUID_FORM) == _UUID_ZEROS:  # noqa: PLR2004 - 36, as Avro writes a length
        return raw.decode(), end
    value, at = text(body, at, field)
    value = value.lower()
    if len(value) != 36 or value.encode().translate(_UUID_FORM) != _UUID_ZEROS:  # noqa: PLR2004
        invalid(field, "a UUID of 36 characters", value)
    return value, at


def timestamp(body: bytes, at: int, field: str) -> Read[datetime]:
    """Read microseconds since 1970, from the year 2000 until 2100: these always take eight bytes."""
    micros = _micros_at(body, at)
    if micros < 0:
        number, _ = long(body, at, field)
        invalid(field, f"microseconds from {TIMESTAMP_MIN:%Y} until {TIMESTAMP_END:%Y}", number)
    # Exact: a double holds seconds of these years to a quarter of a microsecond.
    return _from_seconds(micros / 1_000_000, UTC), at + 8


def _micros_at(body: bytes, at: int) -> i64:
    """Return the microseconds that are written here, or -1 if they aren't of these years."""
    if at + 8 > len(body):
        return -1
    doubled: i64 = 0
    shift: i64 = 0
    for place in range(at, at + 7):
        byte: i64 = body[place]
        if byte < 128:  # noqa: PLR2004 - of eight bytes, all but the last carry the continuation bit
            return -1
        doubled |= (byte & 127) << shift
        shift += 7
    last: i64 = body[at + 7]
    doubled |= last << shift
    if last >= 128 or doubled & 1 or not _DOUBLED_MIN <= doubled < _DOUBLED_END:  # noqa: PLR2004
        return -1
    return doubled >> 1


def common_envelope(body: bytes, key: str, values: dict[str, Any]) -> int:
    """Read what nearly every event begins with in one go: short texts, and none of the four nullable fields.

    Returns 0 for anything else, right or wrong: the readers of the single fields know what to say of it.
    """
    raw_id = body[1:37]
    micros = _micros_at(body, 37)
    if body[0] != 72 or raw_id.translate(_UUID_FORM) != _UUID_ZEROS or micros < 0:  # noqa: PLR2004
        return 0
    length = body[45]
    end = 46 + (length >> 1)
    source_length = body[end]
    source_end = end + 1 + (source_length >> 1)
    # Of one byte, not negative, and the first not empty; the four nulls are there: so is all before them.
    if (length | source_length) & 0x81 or not length or body[source_end : source_end + 4] != _FOUR_NULLS:
        return 0
    entity, source = body[46:end].decode(), body[end + 1 : source_end].decode()
    if "\0" in entity or "\0" in source:
        return 0
    values["event_id"] = raw_id.decode()
    values["event_timestamp"] = _from_seconds(micros / 1_000_000, UTC)
    values[key] = entity
    values["source_system"] = source
    return source_end + 4


def day(body: bytes, at: int, field: str) -> Read[date]:
    """Read days since 1970, from year 1 to 9999."""
    days, at = long(body, at, field)
    if not _DAYS_MIN <= days <= _DAYS_MAX:
        invalid(field, f"{_DAYS_MIN} to {_DAYS_MAX} days since 1970", days)
    return date.fromordinal(days + _EPOCH_DAY), at


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
    return Decimal(unscaled).scaleb(-scale, EXACT), at


def changed_fields(body: bytes, at: int, field: str, names: Mapping[bytes, _T]) -> Read[tuple[_T, ...]]:
    """Read field names: at least one, each known and there once."""
    if body[at] == 2:  # noqa: PLR2004 - one block of one name, as almost always
        length = body[at + 1]
        end = at + 2 + (length >> 1)
        only = names.get(body[at + 2 : end])
        if only is not None and not body[end] and not length & 0x81:
            return (only,), end + 1
    changed: list[_T] = []
    count, at = block(body, at, field)
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
        count, at = block(body, at, field)
    if not changed:
        invalid(field, "at least one field", "none")
    return tuple(changed), at


def not_before(field: str, value: date | None, first: str, earliest: date | None) -> None:
    """Refuse a period that ends before it begins."""
    if value is not None and earliest is not None and value < earliest:
        invalid(field, f"a day not before {first}, which is {earliest}", str(value))
