"""A producer that numbers each entity's events, and remembers what it sent and what Kafka acknowledged."""

import asyncio
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from time import time

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError
from aiokafka.structs import RecordMetadata

from sitelog.streams._event import Event
from sitelog.streams.codec import Codec
from tests.lives import Lives

SITES = 400
"""Of each producer: a transaction with 200 and more writes their rows by COPY, which is to meet faults, too."""

TICK_SECONDS = 0.05
BURST_TICKS = 200
IN_BURSTS = 0.5
"""Of the events: they come at once every so many ticks, as those of an import do."""

ACKNOWLEDGED_SECONDS_MAX = 90.0
SHARE = 1 / 3
"""Of the events, while some are sent twice or late."""

REMEMBERED = 500
"""Of the latest sends: each of them may be the one that is sent again."""

Place = tuple[str, int]


@dataclass
class Send:
    """One record as it was handed over; `number` is its event's among those of its entity, from 1."""

    entity_id: str
    number: int
    event_id: str
    topic: str
    value: bytes
    answer: asyncio.Future[RecordMetadata] = field(repr=False)

    @property
    def acknowledged(self) -> tuple[Place, int] | None:
        """Where all replicas have it; None if nobody said so: it may be there, or not."""
        if not self.answer.done() or self.answer.cancelled() or self.answer.exception() is not None:
            return None
        metadata = self.answer.result()
        return (metadata.topic, metadata.partition), metadata.offset


class Producer:
    """Idempotent, acks=all. `sends` are in the order in which they were handed over."""

    def __init__(self, seed: int, name: str, bootstrap_servers: list[str]) -> None:
        self.sends: list[Send] = []
        self.ends: Counter[Place] = Counter()
        """The offset after the last acknowledged record."""
        self.repeats = False
        self.reorders = False
        self.repeated = 0
        self.reordered = 0
        self._lives = Lives(seed, sites=SITES, territories=6)
        self._draw = random.Random(f"{name} {seed}")  # noqa: S311 - not a secret
        self._codec = Codec()
        self._numbers: Counter[str] = Counter()
        self._held: dict[str, Send] = {}
        self._kafka = AIOKafkaProducer(
            bootstrap_servers=bootstrap_servers,
            acks="all",
            enable_idempotence=True,
            compression_type="snappy",
            linger_ms=5,
            retry_backoff_ms=50,
            metadata_max_age_ms=5_000,
        )

    async def produce(self, per_second: float, over: asyncio.Event) -> None:
        """Send until it is over, then wait, for a bounded time, until all is acknowledged."""
        await self._kafka.start()
        try:
            due = 0.0
            ticks = 0
            while not over.is_set():
                ticks += 1
                is_burst = ticks % BURST_TICKS == 0
                due += per_second * TICK_SECONDS * (1 - IN_BURSTS + IN_BURSTS * BURST_TICKS * is_burst)
                for event in islice(self._lives, int(due)):
                    await self._take(event)
                due -= int(due)
                with suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), TICK_SECONDS)
            await self.release()
            await asyncio.wait([send.answer for send in self.sends], timeout=ACKNOWLEDGED_SECONDS_MAX)
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._kafka.stop(), TICK_SECONDS * 200)

    async def release(self) -> None:
        """Send what was held back to be late."""
        while self._held:
            _, send = self._held.popitem()
            await self._send(send)

    async def _take(self, event: Event) -> None:
        send = self._numbered(event)
        if self.reorders and send.entity_id not in self._held and self._draw.random() < SHARE:
            self._held[send.entity_id] = send
            return
        await self._send(send)
        late = self._held.pop(send.entity_id, None)
        if late is not None:
            await self._send(late)
            self.reordered += 1
        if self.repeats and self._draw.random() < SHARE:
            again = send if self._draw.random() < SHARE else self._draw.choice(self.sends[-REMEMBERED:])
            await self._send(self._copy(again))
            self.repeated += 1

    def _numbered(self, event: Event) -> Send:
        self._numbers[event.entity_id] += 1
        number = self._numbers[event.entity_id]
        numbered = event.model_copy(update={"correlation_id": str(number)})
        value = self._codec.encode(numbered)
        return Send(event.entity_id, number, event.event_id, event.topic, value, asyncio.Future())

    @staticmethod
    def _copy(send: Send) -> Send:
        return Send(send.entity_id, send.number, send.event_id, send.topic, send.value, asyncio.Future())

    async def _send(self, send: Send) -> None:
        key, now = send.entity_id.encode(), int(time() * 1000)
        while True:
            try:
                send.answer = await self._kafka.send(send.topic, send.value, key=key, timestamp_ms=now)
            except KafkaTimeoutError:
                continue  # the buffer is full while a broker is away: nothing was taken
            break
        self.sends.append(send)
        send.answer.add_done_callback(lambda _: self._note(send))

    def _note(self, send: Send) -> None:
        if send.acknowledged is not None:
            place, offset = send.acknowledged
            self.ends[place] = max(self.ends[place], offset + 1)
