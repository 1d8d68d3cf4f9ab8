"""Avro's binary form, read by hand: strict, without a copy too many, and as fast as plain Python goes.

Each reader takes the body, a position in it and the name of the field, and returns the value and the
position after it. Lengths are never trusted: a slice ends where the body ends, so that a corrupt length
allocates nothing, and reading behind the end is an IndexError, which `codec` calls truncated.
Source of the format: Avro 1.12 specification, "Binary Encoding".
"""

from collections.abc import Callable
from math import isfinite
from struct import Struct
from typing import Final, NoReturn, TypeVar

from sitelog.streams.errors import Park

_INT_END: Final = 2**31
_DOUBLE: Final = Struct("<d")

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


def int_(body: bytes, at: int, field: str) -> Read[int]:
    """Read a number of 32 bits."""
    number, at = long(body, at, field)
    if not -_INT_END <= number < _INT_END:
        wrong_bytes(field, "a number of 32 bits", number)
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


def symbol(body: bytes, at: int, field: str, symbols: tuple[str, ...]) -> Read[str]:
    """Read one of an enum's symbols."""
    index, at = long(body, at, field)
    if not 0 <= index < len(symbols):
        wrong_bytes(field, f"0 to {len(symbols) - 1}", index)
    return symbols[index], at


def array(body: bytes, at: int, field: str, item: Callable[[bytes, int, str], Read[_T]]) -> Read[tuple[_T, ...]]:
    """Read items, each of which takes a byte at least: a corrupt count ends with the body."""
    items: list[_T] = []
    count, at = block(body, at, field)
    while count:
        for _ in range(count):
            value, at = item(body, at, field)
            items.append(value)
        count, at = block(body, at, field)
    return tuple(items), at


def text_map(body: bytes, at: int, field: str) -> Read[dict[str, str]]:
    """Read texts by name; of a name that comes twice the last one counts."""
    entries: dict[str, str] = {}
    count, at = block(body, at, field)
    while count:
        for _ in range(count):
            name, at = text(body, at, field)
            entries[name], at = text(body, at, field)
        count, at = block(body, at, field)
    return entries, at


def block(body: bytes, at: int, field: str) -> Read[int]:
    """Read the number of items of a block; a negative one is followed by the block's size, of no use here."""
    count, at = long(body, at, field)
    if count < 0:
        count = -count
        _, at = long(body, at, field)
    return count, at
