"""A producer that remembers what Kafka acknowledged, and holds the log in Postgres against it."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError
from aiokafka.structs import RecordMetadata

from sitelog.streams._event import Event
from sitelog.streams._kafka import kafka_client_options
from sitelog.streams.codec import Codec
from sitelog.streams.settings import Settings
from tests.oracle import Oracle

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TICK_SECONDS = 0.05

LOG = """
SELECT p.topic, p.partition, l.log_seq, l.kafka_offset, l.event_id::text, l.entity_id, l.append_time
FROM sitelog.event_log AS l
JOIN sitelog.log_partition AS p USING (log_partition)
ORDER BY l.log_partition, l.log_seq
"""

POSITIONS = """
SELECT p.topic, p.partition, o.next_offset
FROM sitelog.consumer_position AS o
JOIN sitelog.log_partition AS p USING (log_partition)
WHERE o.consumer = 'projector'
"""


@dataclass
class Entry:
    """One event as it was appended, and Kafka's answer."""

    event: Event
    answer: asyncio.Future[RecordMetadata] = field(repr=False)

    @property
    def append_time(self) -> datetime:
        return EPOCH + timedelta(milliseconds=self.answer.result().timestamp)

    @property
    def place(self) -> tuple[str, int]:
        acknowledged = self.answer.result()
        return acknowledged.topic, acknowledged.partition


class Ledger:
    """What was appended, in the order in which it was; every append is acknowledged by all replicas."""

    def __init__(self, settings: Settings, producer: AIOKafkaProducer) -> None:
        self.entries: list[Entry] = []
        self._codec = Codec()
        self._settings = settings
        self._producer = producer

    async def append(self, event: Event, codec: Codec | None = None) -> Entry:
        """Send one event; Kafka's answer comes later."""
        key, value = event.entity_id.encode(), (codec or self._codec).encode(event)
        while True:
            try:
                answer = await self._producer.send(event.topic, value, key=key)
            except KafkaTimeoutError:
                continue  # the buffer is full while the broker is away: nothing was taken
            break
        self.entries.append(Entry(event, answer))
        return self.entries[-1]

    async def append_all(self, events: Iterable[Event]) -> None:
        """Send events and wait until all are acknowledged."""
        for event in events:
            await self.append(event)
        await self.acknowledged()

    async def acknowledged(self) -> None:
        await asyncio.gather(*(entry.answer for entry in self.entries))

    @asynccontextmanager
    async def load(self, events: Iterable[Event], *, per_second: int) -> AsyncIterator[None]:
        """Append events while the block runs; at its end all that were appended are acknowledged."""
        over = asyncio.Event()
        task = asyncio.create_task(self._append_until(over, iter(events), per_second))
        try:
            yield
        finally:
            over.set()
            await task
        await self.acknowledged()

    async def _append_until(self, over: asyncio.Event, events: Iterator[Event], per_second: int) -> None:
        while not over.is_set():
            for event in islice(events, int(per_second * TICK_SECONDS)):
                await self.append(event)
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), TICK_SECONDS)

    def ends(self) -> dict[tuple[str, int], int]:
        """Return the offset after the last acknowledged event, by partition."""
        ends: dict[tuple[str, int], int] = {}
        for entry in self.entries:
            if entry.answer.done():
                acknowledged = entry.answer.result()
                ends[entry.place] = max(ends.get(entry.place, 0), acknowledged.offset + 1)
        return ends

    async def is_applied(self, connection: Any, *, but: tuple[str, int] | None = None) -> bool:
        """Tell whether every acknowledged event is behind the projector's positions, those of one partition apart."""
        positions = {(t, p): offset for t, p, offset in await connection.fetch(POSITIONS)}
        return all(positions.get(place, 0) >= end for place, end in self.ends().items() if place != but)

    def folded(self) -> Oracle:
        """Return what the read models must hold."""
        oracle = Oracle()
        for entry in self.entries:
            oracle.apply(entry.event, append_time=entry.append_time)
        return oracle

    async def check_log(self, connection: Any) -> None:
        """Every acknowledged event is in the log once; the log is dense, and in each entity's order."""
        rows = await connection.fetch(LOG)
        numbers: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        found: defaultdict[str, list[str]] = defaultdict(list)
        for topic, partition, log_seq, _, event_id, entity_id, _ in rows:
            numbers[topic, partition].append(log_seq)
            found[entity_id].append(event_id)
        for place, seqs in numbers.items():
            assert seqs == list(range(1, len(seqs) + 1)), f"{place} has a hole"
        appended: defaultdict[str, list[str]] = defaultdict(list)
        for entry in self.entries:
            appended[entry.event.entity_id].append(entry.event.event_id)
        assert len(rows) == len(self.entries)
        assert found == appended


@asynccontextmanager
async def open_ledger(settings: Settings) -> AsyncIterator[Ledger]:
    """A ledger whose producer is open while the block runs."""
    producer = AIOKafkaProducer(
        **kafka_client_options(settings),
        acks="all",
        enable_idempotence=True,
        compression_type="snappy",
        linger_ms=5,
        retry_backoff_ms=50,
        metadata_max_age_ms=5_000,
    )
    await producer.start()
    try:
        yield Ledger(settings, producer)
    finally:
        await producer.stop()
