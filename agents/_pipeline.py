"""Applies batches as they come: several at once, each partition's in order, the same again until it works."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from time import monotonic
from typing import Any, Final, Protocol

import asyncpg

from sitelog.agents._metrics import Metrics
from sitelog.agents._progress import Progress
from sitelog.projections._database import refused_data, transient
from sitelog.projections._items import Item, decode
from sitelog.projections._log import seen_before
from sitelog.projections._pieces import pieces
from sitelog.projections._transaction import Outcome, Projector, Slice
from sitelog.streams._batch import Claim, RecordBatch
from sitelog.streams.codec import Codec
from sitelog.streams.errors import Halt, Park, Retry

log = logging.getLogger("sitelog.pipeline")

DECODE_AT_ONCE: Final = 250
"""Records decoded before others may use the event loop: about 3 ms."""

BACKOFF_SECONDS_MIN: Final = 0.05
BACKOFF_SECONDS_MAX: Final = 1.0
ACQUIRE_SECONDS_MAX: Final = 5.0

WARY_BATCHES: Final = 50
"""Batches that are checked for events sent twice, after one was found: repetitions come in runs."""


class Consumer(Protocol):
    """What the pipeline tells the transport."""

    def applied(self, batch: RecordBatch) -> None:
        """Take note that a batch is in Postgres."""

    def fence(self, claim: Claim) -> None:
        """Read no more under this claim."""

    def reclaim(self, claim: Claim) -> None:
        """Claim anew."""

    def halt(self, halt: Halt) -> None:
        """End the process."""


class Pipeline:
    """Takes batches from the agent and puts them into Postgres; at most `in_flight_max` at once."""

    def __init__(
        self,
        projector: Projector,
        codec: Codec,
        *,
        pool: Callable[[], asyncpg.Pool],
        consumer: Callable[[], Consumer],
        metrics: Metrics,
        progress: Progress,
        in_flight_max: int,
    ) -> None:
        self._projector = projector
        self._codec = codec
        self._pool = pool
        self._consumer = consumer
        self._metrics = metrics
        self._progress = progress
        self._room = asyncio.Semaphore(in_flight_max)
        self._latest: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._wary: dict[tuple[str, int], int] = {}

    async def submit(self, batch: RecordBatch) -> None:
        """Take a batch, as soon as there is room; batches of one partition are applied in the order they came."""
        await self._room.acquire()
        lane = (batch.topic, batch.partition)
        task = asyncio.create_task(self._run(batch, self._latest.get(lane)), name=f"apply {lane[0]}[{lane[1]}]")
        self._latest[lane] = task
        self._running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._room.release()

    async def wait_idle(self, timeout_seconds: float) -> bool:
        """Wait until every batch taken is applied or given up; False when that took longer."""
        running = set(self._running)
        if not running:
            return True
        _, pending = await asyncio.wait(running, timeout=timeout_seconds)
        return not pending

    async def _run(self, batch: RecordBatch, before: asyncio.Task[None] | None) -> None:
        """Apply one batch. Nothing leaves here: what can't be retried ends the process."""
        try:
            started = monotonic()
            claim = batch.claim
            items = await self._decode(batch)
            decoded = monotonic()
            if before is not None:
                await asyncio.wait({before})
            part = Slice(batch.topic, batch.partition, claim.epoch, batch.start, batch.end, items)
            outcome = await self._apply(claim, part)
            if outcome is not None:
                self._settle(batch, outcome)
                self._metrics.applied(batch, outcome, decode=decoded - started, total=monotonic() - started)
        except Halt as halt:
            self._consumer().halt(halt)
        except Exception as error:
            log.exception("%s[%d]: batch at offset %d failed", batch.topic, batch.partition, batch.start)
            self._consumer().halt(Halt(f"{batch.topic}[{batch.partition}]: {type(error).__name__}: {error}"))

    async def _decode(self, batch: RecordBatch) -> list[Item]:
        items: list[Item] = []
        for records in pieces(batch.records, DECODE_AT_ONCE):
            if not await self._prepare(batch.claim, [record.value for record in records]):
                return []  # the claim is over: nobody wants them any more
            items += decode(records, batch.topic, self._codec)
            await asyncio.sleep(0)
        return items

    async def _prepare(self, claim: Claim, values: list[bytes | None]) -> bool:
        """Ask the schema registry for what isn't known yet, until it answers; False once the claim is over."""
        wait = BACKOFF_SECONDS_MIN
        while not claim.void:
            try:
                await self._codec.prepare(values)
            except Retry as retry:
                self._progress.failing(claim.topic, claim.partition, f"schema registry: {retry}")
                wait = await self._back_off(wait, "registry")
            else:
                return True
        return False

    async def _apply(self, claim: Claim, part: Slice) -> Outcome | None:
        """Apply a slice, again and again while the database is away; None once the claim is over."""
        wait = BACKOFF_SECONDS_MIN
        lane = (part.topic, part.partition)
        check_known = self._wary.get(lane, 0) > 0
        while not claim.void:
            try:
                async with self._pool().acquire(timeout=ACQUIRE_SECONDS_MAX) as connection:
                    outcome = await self._projector.apply(connection, part, check_known=check_known)
            except Exception as error:
                if seen_before(error):
                    # Looked for already, it has just come in by another partition: the next look finds it.
                    check_known = True
                    self._wary[lane] = WARY_BATCHES
                elif transient(error):
                    self._progress.failing(part.topic, part.partition, f"Postgres: {error or type(error).__name__}")
                    wait = await self._back_off(wait, "database")
                elif isinstance(error, Retry):
                    # An event that was put aside long ago may need a schema that this process hasn't asked for yet.
                    self._progress.failing(part.topic, part.partition, f"schema registry: {error}")
                    wait = await self._back_off(wait, "registry")
                elif refused_data(error):
                    return await self._divide(claim, part, error)
                else:
                    raise
            else:
                self._wary[lane] = max(0, self._wary.get(lane, 0) - 1)
                return outcome
        return None

    async def _divide(self, claim: Claim, part: Slice, error: BaseException) -> Outcome | None:
        """Find the record that the database refuses, by halves, and put it aside."""
        if len(part.items) == 1:
            return await self._apply(claim, self._parked(part, error))
        middle = len(part.items) // 2
        at = part.items[middle].offset
        first = await self._apply(claim, replace(part, end=at, items=part.items[:middle]))
        if first is None or first.verdict not in ("applied", "applied_before"):
            return first
        second = await self._apply(claim, replace(part, start=at, items=part.items[middle:]))
        return None if second is None else reduce(_added, (first, second))

    @staticmethod
    def _parked(part: Slice, error: BaseException) -> Slice:
        (item,) = part.items
        if item.event is None:
            raise Halt(f"{part.topic}[{part.partition}] offset {item.offset}: can't even be put aside: {error}")
        item.event, item.problem = None, Park("refused_by_database", f"{type(error).__name__}: {error}")
        return part

    async def _back_off(self, seconds: float, why: str) -> float:
        self._metrics.retried(why)
        await asyncio.sleep(seconds)
        return min(seconds * 2, BACKOFF_SECONDS_MAX)

    def _settle(self, batch: RecordBatch, outcome: Outcome) -> None:
        consumer = self._consumer()
        if outcome.verdict == "fenced":
            consumer.fence(batch.claim)
        elif outcome.verdict == "lost":
            consumer.reclaim(batch.claim)
        else:
            self._progress.moved(batch)
            consumer.applied(batch)


def _added(one: Outcome, other: Outcome) -> Outcome:
    counts: dict[str, Any] = {
        name: getattr(one, name) + getattr(other, name)
        for name in ("events", "duplicates", "parked", "waiting", "conflicts")
    }
    return replace(other, **counts, last_event_time=other.last_event_time or one.last_event_time)
