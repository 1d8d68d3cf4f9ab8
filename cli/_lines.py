"""Reads events from a file or a pipe, line by line as they come, and reports each bad line with its number."""

import asyncio
import os
from codecs import BOM_UTF8
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final

from sitelog.streams._event import Event
from sitelog.streams.errors import SitelogError
from sitelog.streams.json_lines import InvalidLine, event_of

_CHUNK_BYTES: Final = 65_536
LINE_BYTES_MAX: Final = 96 * 1_048_576
"""The largest event that may be configured, every character escaped: a file without line ends fills no memory."""
_ENVELOPE_BYTES: Final = 1_024
"""What an event may have besides its line: an id, a time, a header."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its end; `text` is None for one that is too long to be kept."""

    number: int
    text: bytes | None


class BadLineError(SitelogError):
    """A line is no event, and the reading stops there."""


@dataclass(slots=True)
class EventLines:
    """The events of a file descriptor, once through. `bad` and `bytes_read` count along.

    Whoever reads sets `settled` to how many events have arrived: their line numbers are forgotten.
    """

    descriptor: int
    name: str
    go_on: bool
    report: Callable[[str], None]
    check_size: Callable[[Event], object]
    event_bytes_max: int
    bad: int = 0
    bytes_read: int = 0
    settled: int = 0
    _numbers: deque[int] = field(default_factory=deque)
    _forgotten: int = 0

    def number_of(self, position: int) -> int:
        """Return the line of the event before which `position` others were yielded, if it hasn't been forgotten."""
        return self._numbers[position - self._forgotten]

    def first_missing(self) -> int | None:
        """Return the line of the first event that hasn't arrived, None where all that were yielded have."""
        return self.number_of(self.settled) if self.settled < self._forgotten + len(self._numbers) else None

    async def events(self) -> AsyncIterator[Event]:
        """Yield each line's event, without waiting for the next line's bytes.

        A bad line is reported as `name:number: reason`. Then the next one follows, or, unless it is to go on,
        BadLineError.
        """
        async for line in self._lines():
            try:
                event = self._event(line)
            except SitelogError as problem:
                self.bad += 1
                self.report(f"{self.name}:{line.number}: {problem}")
                if not self.go_on:
                    raise BadLineError from problem
                continue
            if event is not None:
                self._remember(line.number)
                yield event

    def _remember(self, number: int) -> None:
        while self._forgotten < self.settled and self._numbers:
            self._numbers.popleft()
            self._forgotten += 1
        self._numbers.append(number)

    def _event(self, line: Line) -> Event | None:
        """Return None for an empty line."""
        if line.text is None:
            raise InvalidLine(f"expected at most {LINE_BYTES_MAX} bytes in a line, got more")
        if not line.text.strip():
            return None
        event = event_of(line.text)
        # In Avro nothing is longer than in JSON, but a number by four times: the others needn't be encoded for it.
        if len(line.text) * 4 + _ENVELOPE_BYTES > self.event_bytes_max:
            self.check_size(event)
        return event

    async def _lines(self) -> AsyncIterator[Line]:
        parts: list[bytes] = []
        number, size = 1, 0
        async for chunk in _chunks(self.descriptor):
            self.bytes_read += len(chunk)
            *ended, last = chunk.split(b"\n")
            for text in ended:
                yield _joined(number, [*parts, text], size + len(text))
                number, parts, size = number + 1, [], 0
            size += len(last)
            parts = [*parts, last] if size <= LINE_BYTES_MAX else []
        if size:
            yield _joined(number, parts, size)


def _joined(number: int, parts: list[bytes], size: int) -> Line:
    if size > LINE_BYTES_MAX:
        return Line(number, None)
    text = b"".join(parts)
    # Some programs for Windows begin each file in UTF-8 with it.
    return Line(number, text.removeprefix(BOM_UTF8) if number == 1 else text)


async def _chunks(descriptor: int) -> AsyncIterator[bytes]:
    """Yield bytes as soon as there are some; neither waiting for a pipe or a terminal nor a long file stops others."""
    may_wait = True
    while True:
        if may_wait:
            may_wait = await _readable(descriptor)
        chunk = os.read(descriptor, _CHUNK_BYTES)
        if not chunk:
            return
        yield chunk
        if not may_wait:
            # Else whoever ends this, as SIGTERM does, would have to wait for the file's end.
            await asyncio.sleep(0)


async def _readable(descriptor: int) -> bool:
    """Wait until there is something to read; return False for a file, which never makes one wait."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except PermissionError:
        return False
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
    return True
