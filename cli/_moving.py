"""What it means to move a position: which offset is meant, what is skipped, what is read again."""

from collections.abc import Iterator

from sitelog.cli._figures import counted
from sitelog.streams._offsets import Bounds, Place
from sitelog.streams.errors import ConfigError


def offset_of(text: str, place: Place, bounds: Bounds) -> int:
    """Return the offset that is meant by a number, `start` or `end`.

    Raises ConfigError unless the topic has it: `first` to `end`, the end being the offset of the next event.
    """
    where = f"{place.topic}[{place.partition}]"
    if text in {"start", "end"}:
        return bounds.first if text == "start" else bounds.end
    if not (text.isascii() and text.isdigit() and bounds.first <= int(text) <= bounds.end):
        raise ConfigError(f"{where}: expected start, end or an offset from {bounds.first} to {bounds.end}, got {text}")
    return int(text)


def consequences(before: int | None, after: int, bounds: Bounds) -> Iterator[str]:
    """Yield sentences on what happens to the events between two positions; `before` is None for no claim so far."""
    begin = 0 if before is None else before
    deleted = max(0, min(bounds.first, after) - begin)
    if deleted:
        yield f"{counted(deleted, 'event')}, {_span(begin, begin + deleted)}, no longer in the topic: skipped"
    skipped = after - max(begin, bounds.first)
    if skipped > 0:
        yield f"{counted(skipped, 'event')}, {_span(after - skipped, after)}, in the topic: never applied"
    if after < begin:
        until = min(begin, bounds.end)
        again = counted(until - after, "event")
        yield f"{again}, {_span(after, until)}, read again: those applied or put aside change nothing"
    if begin > bounds.end:
        yield f"the position was {begin - bounds.end:,} beyond the topic's end"
    if after == begin:
        yield "nothing is skipped or read again; the record before is not compared with the one applied last"


def _span(first: int, end: int) -> str:
    return f"offset {first:,}" if end == first + 1 else f"offsets {first:,} to {end - 1:,}"
