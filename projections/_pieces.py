"""Long work, bit by bit: who shares the event loop, or waits for what is done already, waits for one piece."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def pieces(whole: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the sequence in pieces of this size, the last one of what is left."""
    return (whole[first : first + size] for first in range(0, len(whole), size))
