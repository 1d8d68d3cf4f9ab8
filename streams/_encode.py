"""Avro's binary form, written by hand: a record's writer is put together once, from its schema.

It takes events as their classes have checked them. Source of the format: Avro 1.12 specification, "Binary Encoding".
"""

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from struct import Struct
from typing import Any, Final

from sitelog.streams._wire_rules import EPOCH, EXACT

Write = Callable[[Any, bytearray], None]

_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH_DAY: Final = EPOCH.date().toordinal()
_DOUBLE: Final = Struct("<d")


def writer_of(schema: Any) -> Write:
    """Return what writes a value of this schema, as our classes hold it, to the end of a bytearray.

    Raises ValueError for a schema that no class of ours has.
    """
    return _writer(schema, {})


def _writer(schema: Any, named: dict[str, Write]) -> Write:
    if isinstance(schema, list):
        return _nullable(_writer(schema[1], named))
    if isinstance(schema, str):
        return named.get(schema) or _PRIMITIVES[schema]
    if schema["type"] == "record":
        named[schema["name"]] = _record(schema, named)
        return named[schema["name"]]
    return _composed(schema, named)


def _composed(schema: Mapping[str, Any], named: dict[str, Write]) -> Write:
    match schema:
        case {"logicalType": "decimal", "scale": scale}:
            return _decimal(scale)
        case {"logicalType": logical}:
            return _PRIMITIVES[logical]
        case {"type": "array", "items": items}:
            return _array(_writer(items, named))
        case {"type": "map", "values": values}:
            return _map(_writer(values, named))
        case {"type": "enum", "symbols": symbols}:
            return _enum(symbols)
    raise ValueError(f"expected a type that can be written, got {schema}")


def _record(schema: Mapping[str, Any], named: dict[str, Write]) -> Write:
    fields = [(field["name"], _writer(field["type"], named)) for field in schema["fields"]]

    def write(record: Any, out: bytearray) -> None:
        values = record.__dict__
        for name, write_field in fields:
            write_field(values[name], out)

    return write


def _nullable(write_value: Write) -> Write:
    def write(value: Any, out: bytearray) -> None:
        if value is None:
            out.append(0)
        else:
            out.append(2)
            write_value(value, out)

    return write


def _array(write_item: Write) -> Write:
    def write(items: tuple[Any, ...], out: bytearray) -> None:
        if items:
            _long(len(items), out)
            for item in items:
                write_item(item, out)
        out.append(0)

    return write


def _map(write_value: Write) -> Write:
    def write(entries: Mapping[str, Any], out: bytearray) -> None:
        if entries:
            _long(len(entries), out)
            for name, value in entries.items():
                _string(name, out)
                write_value(value, out)
        out.append(0)

    return write


def _enum(symbols: list[str]) -> Write:
    positions = {symbol: position for position, symbol in enumerate(symbols)}

    def write(symbol: str, out: bytearray) -> None:
        _long(positions[symbol], out)

    return write


def _decimal(scale: int) -> Write:
    def write(number: Decimal, out: bytearray) -> None:
        unscaled = int(number.scaleb(scale, EXACT))
        size = (unscaled if unscaled >= 0 else ~unscaled).bit_length() // 8 + 1
        _long(size, out)
        out += unscaled.to_bytes(size, signed=True)

    return write


def _long(number: int, out: bytearray) -> None:
    number = number << 1 if number >= 0 else ~(number << 1)
    while number > 127:  # noqa: PLR2004 - seven bits a byte, the eighth says that there are more
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)


def _string(text: str, out: bytearray) -> None:
    encoded = text.encode()
    _long(len(encoded), out)
    out += encoded


def _double(number: float, out: bytearray) -> None:
    out += _DOUBLE.pack(number)


def _timestamp(moment: datetime, out: bytearray) -> None:
    _long((moment - EPOCH) // _MICROSECOND, out)


def _date(day: date, out: bytearray) -> None:
    _long(day.toordinal() - _EPOCH_DAY, out)


_PRIMITIVES: Final[Mapping[str, Write]] = {
    "string": _string,
    "int": _long,
    "long": _long,
    "double": _double,
    "timestamp-micros": _timestamp,
    "date": _date,
}
