"""Rows as Postgres sends and takes them: most go back as they came, with a value or two changed.

To make objects of all values and take these apart again costs several times as much as to carry the bytes through.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sitelog.projections._binary import CODECS, NULL, Encode

# A record that `record_send` gives: how many values there are, then for each its type, its length and itself.
_COUNT: Final = 4
_TYPE: Final = 4
_LENGTH: Final = 4

_POSITIVE_MAX: Final = 127
"""The first byte of a length is greater only where there is no value."""


class UnfitValueError(ValueError):
    """A column can't hold a value."""


class RowFormat:
    """A row's columns, by name: each one's Postgres type."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = list(columns.items())
        self._encode = [CODECS[kind][0] for kind in columns.values()]
        self._decode = [CODECS[kind][1] for kind in columns.values()]

    def value(self, record: bytes, index: int) -> Any:
        """Return one value of a record."""
        at = _COUNT + _TYPE
        for _ in range(index):
            at += _LENGTH + _size(record, at) + _TYPE
        if record[at] > _POSITIVE_MAX:
            return None
        begin = at + _LENGTH
        return self._decode[index](record[begin : begin + _size(record, at)])

    def values(self, record: bytes) -> list[Any]:
        """Return all values of a record."""
        values: list[Any] = []
        at = _COUNT + _TYPE
        for decode in self._decode:
            begin = at + _LENGTH
            end = begin + _size(record, at)
            values.append(None if record[at] > _POSITIVE_MAX else decode(record[begin:end]))
            at = end + _TYPE
        return values

    def packed(self, values: Sequence[Any]) -> list[bytes]:
        """Return values as COPY takes them. Raises UnfitValueError."""
        return [self._packed(index, self._encode[index], values[index]) for index in range(len(self._encode))]

    def changed(self, record: bytes, changes: Mapping[int, Any], wanted: Sequence[bool] | None = None) -> list[bytes]:
        """Return a record as COPY takes it, with other values at some indexes. Raises UnfitValueError.

        With `wanted`, by index, only those values.
        """
        parts: list[bytes] = []
        at = _COUNT + _TYPE
        for index in range(len(self._encode)):
            end = at + _LENGTH + _size(record, at)
            if wanted is None or wanted[index]:
                if index in changes:
                    parts.append(self._packed(index, self._encode[index], changes[index]))
                else:
                    parts.append(record[at:end])
            at = end + _TYPE
        return parts

    def _packed(self, index: int, encode: Encode, value: Any) -> bytes:
        if value is None:
            return NULL
        try:
            data = encode(value)
        except (TypeError, ValueError, AttributeError, OverflowError, struct.error) as error:
            name, kind = self._columns[index]
            raise UnfitValueError(f"{name}: expected what fits into {kind}, got {type(value).__name__}") from error
        return len(data).to_bytes(_LENGTH, "big") + data


def _size(record: bytes, at: int) -> int:
    """Return the length that is written here, 0 where there is no value."""
    first = record[at]
    if first > _POSITIVE_MAX:
        return 0
    return first << 24 | record[at + 1] << 16 | record[at + 2] << 8 | record[at + 3]
