"""How long it takes until an event can be read in its row: at a steady rate, into a worker that has caught up."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any, Final

import orjson

from sitelog.deploy._daemon import stop_together
from sitelog.streams._event import Event
from sitelog.streams.append import Appender
from tests.benchmarks.contenders import SITELOG
from tests.benchmarks.events import TOPIC, Life
from tests.benchmarks.race import SILENT_SECONDS_MAX, STOP_STEPS, command, environment
from tests.benchmarks.services import Database, Services

SITES: Final = 1_000
WARM_UP_SECONDS: Final = 2.0
VISIBLE_SECONDS_MAX: Final = 30.0
_PARTITIONS_SQL: Final = "SELECT log_partition, partition FROM sitelog.log_partition WHERE topic = $1"


@dataclass(frozen=True)
class Latency:
    """Milliseconds from the acknowledgement, and (`whole`) from the call of `append`, to the committed row."""

    rate: float
    events: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    whole_p50_ms: float
    whole_p99_ms: float


@dataclass
class Sent:
    """One event's times: called and acknowledged."""

    called: float
    acknowledged: float


@dataclass
class Timeline:
    """Matches what was acknowledged with what the worker says that it has committed, by partition and offset."""

    partitions: dict[int, int]
    sent: dict[tuple[int, int], Sent] = field(default_factory=dict)
    # Of each partition: when its position was seen to reach which next offset.
    reached: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def notified(self, *arguments: Any) -> None:
        """Take a notification of `sitelog_position`: it comes with the commit."""
        at = time.monotonic()
        position = orjson.loads(arguments[-1])
        partition = self.partitions.get(position["log_partition"])
        if partition is not None:
            self.reached.setdefault(partition, []).append((position["next_offset"], at))
            self.changed.set()

    def visible_at(self, partition: int, offset: int) -> float | None:
        """When the event was there; None while it isn't."""
        return next((at for end, at in self.reached.get(partition, []) if end > offset), None)

    async def wait_for_all(self) -> None:
        """Return when every event sent is visible; raises TimeoutError."""
        ends: dict[int, int] = {}
        for partition, offset in self.sent:
            ends[partition] = max(ends.get(partition, 0), offset)
        async with asyncio.timeout(VISIBLE_SECONDS_MAX):
            while any(self.visible_at(partition, offset) is None for partition, offset in ends.items()):
                self.changed.clear()
                await self.changed.wait()


async def measure(services: Services, rates: Sequence[float], seconds: float) -> list[Latency]:
    """Append at each of the rates for so long, after a warm-up at the same rate, to one worker."""
    async with services.fresh_database("latency") as database:
        connection = await services.connect(database.name)
        rows = await connection.fetch(_PARTITIONS_SQL, TOPIC)
        timeline = Timeline({row["log_partition"]: row["partition"] for row in rows})
        await connection.add_listener("sitelog_position", timeline.notified)
        async with _worker(services, database), Appender(database.settings) as appender:
            life = Life(SITES, SITES)
            for event in life.history():
                await _append(appender, event, timeline)
            async with asyncio.timeout(SILENT_SECONDS_MAX):
                await timeline.wait_for_all()
            measured = [await _at_rate(appender, life, timeline, rate, seconds) for rate in rates]
        await connection.close()
    return measured


@asynccontextmanager
async def _worker(services: Services, database: Database) -> AsyncIterator[None]:
    daemon = services.daemon(database.name)
    daemon.start(command(SITELOG, database, None), environment())
    try:
        yield
    finally:
        await asyncio.to_thread(stop_together, [daemon], STOP_STEPS)


async def _at_rate(appender: Appender, life: Life, timeline: Timeline, rate: float, seconds: float) -> Latency:
    await _steadily(appender, life, timeline, rate, WARM_UP_SECONDS)
    timeline.sent.clear()
    timeline.reached.clear()
    await _steadily(appender, life, timeline, rate, seconds)
    return _latency(rate, timeline)


async def _steadily(appender: Appender, life: Life, timeline: Timeline, rate: float, seconds: float) -> None:
    """Append when it is time, however long the ones before take: a slow worker must not slow its own test down."""
    count = round(rate * seconds)
    begun = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            await asyncio.sleep(begun + number / rate - time.monotonic())
            group.create_task(_append(appender, life.change(), timeline))
    await timeline.wait_for_all()


async def _append(appender: Appender, event: Event, timeline: Timeline) -> None:
    called = time.monotonic()
    where = await appender.append(event)
    timeline.sent[where.partition, where.offset] = Sent(called, time.monotonic())


def _latency(rate: float, timeline: Timeline) -> Latency:
    pairs = [(sent, timeline.visible_at(*where)) for where, sent in timeline.sent.items()]
    after = [max(0.0, at - sent.acknowledged) * 1_000 for sent, at in pairs if at is not None]
    whole = [(at - sent.called) * 1_000 for sent, at in pairs if at is not None]
    cuts, whole_cuts = quantiles(after, n=100), quantiles(whole, n=100)
    return Latency(rate, len(after), cuts[49], cuts[94], cuts[98], max(after), whole_cuts[49], whole_cuts[98])
