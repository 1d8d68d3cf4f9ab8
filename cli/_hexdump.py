"""Bytes as a person reads them: offset, sixteen at a time in hexadecimal, and what of it is text."""

from collections.abc import Iterator
from typing import Final

WIDTH: Final = 16


def hexdump(data: bytes) -> Iterator[str]:
    """Yield a line for every sixteen bytes, as `hexdump -C` writes it."""
    for start in range(0, len(data), WIDTH):
        row = data[start : start + WIDTH]
        halves = (row[: WIDTH // 2].hex(" "), row[WIDTH // 2 :].hex(" "))
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)  # noqa: PLR2004 - ASCII's printable ones
        yield f"{start:08x}  {halves[0]:<23}  {halves[1]:<23}  |{text}|"
