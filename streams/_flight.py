"""What was sent and isn't acknowledged yet, in the order of sending: the first of it is where to resume."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import takewhile
from typing import NamedTuple

from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

from sitelog.streams._event import Event


class Missing(NamedTuple):
    """The oldest event without an acknowledgement: all before it are in the log.

    `position` counts the events before it, `others` those after it that aren't acknowledged either.
    """

    event: Event
    position: int
    others: int
    reason: BaseException


class MissingError(Exception):
    """Kafka has refused an event, or hasn't said in time that it has it."""

    def __init__(self, missing: Missing) -> None:
        super().__init__(missing)
        self.missing = missing


class Flight:
    """The events of one `append_many`, from their sending to their acknowledgement."""

    def __init__(self, seconds_max: float, events_max: int, progress: Callable[[int], None]) -> None:
        """Take how long the oldest may be unacknowledged, how many there may be, and who hears of acknowledgements."""
        self._seconds_max = seconds_max
        self._events_max = events_max
        self._progress = progress
        self._unsettled: deque[tuple[Event, asyncio.Future[RecordMetadata]]] = deque()
        self._told = 0
        self._some = asyncio.Event()
        self.sent = 0

    def add(self, event: Event, future: asyncio.Future[RecordMetadata]) -> None:
        """Take an event that was sent just now."""
        self._unsettled.append((event, future))
        self.sent += 1
        self._some.set()

    @asynccontextmanager
    async def settling(self) -> AsyncIterator[None]:
        """Settle while the block waits for something else, and end the block with MissingError."""
        watch = asyncio.create_task(self._settle_as_they_come())
        try:
            async with asyncio.timeout(None) as block:

                def end(_: object) -> None:
                    block.reschedule(asyncio.get_running_loop().time())

                watch.add_done_callback(end)
                try:
                    yield
                finally:
                    watch.remove_done_callback(end)
        finally:
            watch.cancel()
            await asyncio.wait([watch])
            if not watch.cancelled():
                watch.result()

    async def _settle_as_they_come(self) -> None:
        while True:
            await self._some.wait()
            await self.settle()
            self._some.clear()

    def settle_done(self) -> None:
        """Take out what is acknowledged, in the order of sending; raises MissingError for what was refused."""
        while self._unsettled and self._unsettled[0][1].done():
            try:
                self._unsettled[0][1].result()
            except KafkaError as error:
                raise MissingError(self._missing(error)) from error
            self._unsettled.popleft()
        if self._told < self.sent - len(self._unsettled):
            self._tell(self.sent - len(self._unsettled))

    async def settle(self) -> None:
        """Wait until all is acknowledged; raises MissingError for the oldest that isn't in time."""
        await self._settle_to(0)

    async def room(self) -> None:
        """Wait until one more may be sent: none leaves before those before it. Raises what `settle` raises."""
        if len(self._unsettled) >= self._events_max:
            await self._settle_to(self._events_max - 1)

    async def _settle_to(self, count: int) -> None:
        self.settle_done()
        while len(self._unsettled) > count:
            # A deadline of its own costs more than all else here, and most have come with the one before.
            done, _ = await asyncio.wait([self._unsettled[0][1]], timeout=self._seconds_max)
            if not done:
                raise MissingError(self._missing(TimeoutError()))
            self.settle_done()

    def not_sent(self, event: Event, reason: Exception) -> MissingError:
        """Return the error of an event that Kafka didn't take: it names the oldest that may be missing."""
        return MissingError(self._missing(reason, event))

    def end(self) -> None:
        """Tell how many are acknowledged before the first one that isn't, and wait for no other."""
        further = takewhile(_is_acknowledged, (future for _, future in self._unsettled))
        acknowledged = self.sent - len(self._unsettled) + sum(1 for _ in further)
        if self._told != acknowledged:
            self._tell(acknowledged)
        for _, future in self._unsettled:
            future.cancel()

    def _tell(self, acknowledged: int) -> None:
        self._told = acknowledged
        self._progress(acknowledged)

    def _missing(self, reason: Exception, *not_sent: Event) -> Missing:
        first = self.sent - len(self._unsettled)
        unacknowledged = [
            (position, event, _refusal(future) or reason)
            for position, (event, future) in enumerate(self._unsettled, first)
            if not _is_acknowledged(future)
        ]
        unacknowledged += [(self.sent, event, reason) for event in not_sent]
        position, event, why = unacknowledged[0]
        return Missing(event, position, len(unacknowledged) - 1, why)


def _refusal(future: asyncio.Future[RecordMetadata]) -> BaseException | None:
    return future.exception() if future.done() and not future.cancelled() else None


def _is_acknowledged(future: asyncio.Future[RecordMetadata]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
