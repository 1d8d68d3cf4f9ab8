"""Consecutive records of one partition, and how they are decoded: bit by bit."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from sitelog.projections._items import Item, decode
from sitelog.streams._batch import Record
from sitelog.streams.codec import Codec
from sitelog.streams.errors import Park

RECORDS_AT_ONCE: Final = 500
"""Records taken before others may use the event loop: about 10 ms; 1 MB of events, which stays in the cache."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Records `[start, end)` of one partition, to be applied under the claim of `epoch`.

    `refused` says why Postgres doesn't take the event, where it is a single one that has been tried.
    """

    topic: str
    partition: int
    epoch: int
    start: int
    end: int
    records: Sequence[Record]
    refused: Park | None = None


class Reading:
    """Decodes a slice; `seconds` is how long that took so far."""

    def __init__(self, part: Slice, codec: Codec) -> None:
        self.seconds = 0.0
        self._part = part
        self._codec = codec

    async def pieces(self) -> AsyncGenerator[list[Item]]:
        """Yield the items, so many at once that others aren't kept from the event loop for long."""
        part = self._part
        for first in range(0, len(part.records), RECORDS_AT_ONCE):
            started = perf_counter()
            items = decode(part.records[first : first + RECORDS_AT_ONCE], part.topic, self._codec)
            self.seconds += perf_counter() - started
            if part.refused is not None:
                for item in items:
                    item.event, item.problem = None, part.refused
            yield items
            await asyncio.sleep(0)
