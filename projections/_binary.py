"""Values in Postgres's binary format, as COPY takes them and `record_send` gives them.

Source: PostgreSQL 18, "COPY", Binary Format; each type as its binary receive and send functions have it.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from struct import Struct
from typing import Any, Final

BEGIN: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END: Final = b"\xff\xff"
NULL: Final = b"\xff\xff\xff\xff"
"""What stands for a value that there isn't, in place of a length."""

POSTGRES_DAY_0: Final = date(2000, 1, 1).toordinal()
"""What Postgres counts days from."""

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# asyncpg has these for the same: a row must not depend on which way it went.
_INFINITE: Final[Mapping[datetime, int]] = {
    datetime.max.replace(tzinfo=UTC): 2**63 - 1,
    datetime.min.replace(tzinfo=UTC): -(2**63),
}

_DOUBLE: Final = Struct(">d")
_NUMERIC: Final = Struct(">hhHH")
_DIGITS: Final = 4
_MINUS: Final = 0x4000
_SPECIAL: Final[Mapping[str, int]] = {"NaN": 0xC000, "Infinity": 0xD000, "-Infinity": 0xF000}


def micros(at: datetime) -> int:
    """Return a time as Postgres keeps it: microseconds since 2000."""
    return (at - _EPOCH) // _MICROSECOND


def sized(value: str | None) -> bytes:
    """Return a text after its length, as it stands in a row."""
    if value is None:
        return NULL
    data = value.encode()
    return len(data).to_bytes(4, "big") + data


def _text(value: str) -> bytes:
    return value.encode()


def _text_from(data: bytes) -> str:
    return data.decode()


def _bigint(value: int) -> bytes:
    return value.to_bytes(8, "big", signed=True)


def _bigint_from(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _double(value: float) -> bytes:
    return _DOUBLE.pack(value)


def _double_from(data: bytes) -> Any:
    return _DOUBLE.unpack(data)[0]


def _boolean(value: bool) -> bytes:  # noqa: FBT001 - the value itself
    return b"\x01" if value else b"\x00"


def _boolean_from(data: bytes) -> bool:
    return data == b"\x01"


def _timestamptz(value: datetime) -> bytes:
    infinite = _INFINITE.get(value)
    return _bigint(micros(value) if infinite is None else infinite)


def _timestamptz_from(data: bytes) -> datetime:
    count = _bigint_from(data)
    for value, infinite in _INFINITE.items():
        if count == infinite:
            return value
    return _EPOCH + timedelta(microseconds=count)


def _date(value: date) -> bytes:
    return (value.toordinal() - POSTGRES_DAY_0).to_bytes(4, "big", signed=True)


def _date_from(data: bytes) -> date:
    return date.fromordinal(int.from_bytes(data, "big", signed=True) + POSTGRES_DAY_0)


def _jsonb(value: str) -> bytes:
    return b"\x01" + value.encode()


def _jsonb_from(data: bytes) -> str:
    return data[1:].decode()


def _numeric(value: Decimal) -> bytes:
    special = _SPECIAL.get(str(value))
    if special is not None:
        return _NUMERIC.pack(0, 0, special, 0)
    sign, digits, power = value.as_tuple()
    exponent = int(power)
    scale = max(0, -exponent)
    text = ("".join([str(digit) for digit in digits]) + "0" * exponent).rjust(scale, "0")
    whole, fraction = text[: len(text) - scale], text[len(text) - scale :]
    # Groups of four digits, counted from the point, without those that are 0 at either end.
    text = "0" * (-len(whole) % _DIGITS) + whole + fraction + "0" * (-len(fraction) % _DIGITS)
    groups = [int(text[at : at + _DIGITS]) for at in range(0, len(text), _DIGITS)]
    weight = -(-len(whole) // _DIGITS) - 1
    while groups and groups[-1] == 0:
        groups.pop()
    while groups and groups[0] == 0:
        groups.pop(0)
        weight -= 1
    if not groups:
        weight = sign = 0
    head = _NUMERIC.pack(len(groups), weight, _MINUS if sign else 0, scale)
    return head + b"".join([group.to_bytes(2, "big") for group in groups])


def _numeric_from(data: bytes) -> Decimal:
    count, weight, sign, scale = _NUMERIC.unpack(data[:8])
    for name, special in _SPECIAL.items():
        if sign == special:
            return Decimal(name)
    groups = [int.from_bytes(data[at : at + 2], "big") for at in range(8, 8 + 2 * count, 2)]
    before_point = _DIGITS * (weight + 1)
    text = "0" * -before_point + "".join([f"{group:04}" for group in groups])
    before_point = max(0, before_point)
    text = text.ljust(before_point + scale, "0")
    minus = "-" if sign == _MINUS else ""
    return Decimal(f"{minus}{text[:before_point] or '0'}.{text[before_point : before_point + scale]}")


Encode = Callable[[Any], bytes]
Decode = Callable[[bytes], Any]

CODECS: Final[Mapping[str, tuple[Encode, Decode]]] = {
    "text": (_text, _text_from),
    "bigint": (_bigint, _bigint_from),
    "double precision": (_double, _double_from),
    "boolean": (_boolean, _boolean_from),
    "timestamptz": (_timestamptz, _timestamptz_from),
    "date": (_date, _date_from),
    "numeric": (_numeric, _numeric_from),
    "jsonb": (_jsonb, _jsonb_from),
}
"""How a value of a row becomes bytes, and comes back, by Postgres's name of its type, see `POSTGRES_TYPES`."""
