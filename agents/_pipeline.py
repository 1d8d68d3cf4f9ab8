"""Applies batches as they come: several at once, each partition's in order, the same again until it works."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from time import monotonic
from typing import Any, Final, Protocol, Self

import asyncpg

from sitelog.agents._metrics import Metrics
from sitelog.agents._progress import Progress
from sitelog.agents._spans import NO_SPANS, Spans
from sitelog.projections._aside import TooMuchAside, Trial
from sitelog.projections._database import refused_data, transient, why_refused
from sitelog.projections._items import Item, decode
from sitelog.projections._log import seen_before
from sitelog.projections._pieces import pieces
from sitelog.projections._transaction import Outcome, Projector, Slice
from sitelog.streams._batch import Claim, Place, RecordBatch
from sitelog.streams.codec import Codec
from sitelog.streams.errors import Halt, Retry

log = logging.getLogger("sitelog.pipeline")

DECODE_AT_ONCE: Final = 250
"""Records decoded before others may use the event loop: about 3 ms."""

BACKOFF_SECONDS_MIN: Final = 0.05
BACKOFF_SECONDS_MAX: Final = 1.0
ACQUIRE_SECONDS_MAX: Final = 5.0

REPETITIONS_MAX: Final = 10
"""How often a batch may turn out to hold what is written already, although it was looked for."""

WARY_BATCHES: Final = 50
"""Batches that are checked for events sent twice, after one was found: repetitions come in runs."""


NOTHING: Final = Outcome("applied")


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


@dataclass(frozen=True, slots=True)
class Job:
    """A batch, decoded; `started` and `decoded` are monotonic seconds."""

    batch: RecordBatch
    part: Slice
    started: float
    decoded: float


class Group:
    """Small batches that gather, one of each partition, until those before them are done; or one large batch.

    `begun` once nothing more is taken. `earlier` are the groups that have to be done first, `later` wait for this one.
    """

    def __init__(self, records_max: int, bytes_max: int) -> None:
        self.batches: dict[Place, RecordBatch] = {}
        self.begun = asyncio.Event()
        self.earlier: set[Group] = set()
        self.later: set[Group] = set()
        self._records_left = records_max
        self._bytes_left = bytes_max
        self._changed = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Tell whether there is so much that it is worth a transaction."""
        return self._records_left <= 0 or self._bytes_left <= 0

    def takes(self, batch: RecordBatch) -> bool:
        """Tell whether the batch may come along; if it isn't its partition's first here, it becomes part of that."""
        first = self.batches.get(batch.place)
        has_room = len(batch.records) <= self._records_left and self._bytes_left > 0
        return has_room and (first is None or first.claim is batch.claim)

    def add(self, batch: RecordBatch, earlier: Self | None) -> None:
        """Take a batch, and the group that its partition was in before."""
        first = self.batches.get(batch.place)
        self.batches[batch.place] = batch if first is None else first.followed_by(batch)
        self._records_left -= len(batch.records)
        if not self.is_full:
            self._bytes_left -= batch.bytes
        if earlier is not None and earlier is not self:
            self.earlier.add(earlier)
            earlier.later.add(self)
        self._changed.set()

    async def wait_for_earlier(self, *, unless_full: bool) -> None:
        """Return when the groups before this one are done; `unless_full` also when it is worth decoding till then."""
        while self.earlier and not (unless_full and self.is_full):
            self._changed.clear()
            await self._changed.wait()

    def done(self) -> None:
        """Let those go on that wait for this group."""
        for group in self.later:
            group.earlier.discard(self)
            group._changed.set()  # noqa: SLF001 - another one of these
        self.later.clear()


class Pipeline:
    """Takes batches from the agent and puts them into Postgres, with at most `in_flight_max` transactions at once.

    While these are under way, batches gather, until they have `shared_records_max` records or `shared_bytes_max`, and
    then share the next one: most of what a transaction costs doesn't depend on how much is in it.

    `held_seconds_max` is the shortest time after which Postgres ends a transaction.
    """

    def __init__(
        self,
        projector: Projector,
        codec: Codec,
        *,
        pool: Callable[[], asyncpg.Pool],
        consumer: Callable[[], Consumer],
        metrics: Metrics,
        progress: Progress,
        spans: Spans = NO_SPANS,
        in_flight_max: int,
        shared_records_max: int,
        shared_bytes_max: int,
        held_seconds_max: float,
    ) -> None:
        self._projector = projector
        self._codec = codec
        self._pool = pool
        self._consumer = consumer
        self._metrics = metrics
        self._progress = progress
        self._spans = spans
        self._room = asyncio.Semaphore(in_flight_max)
        self._shared_max = (shared_records_max, shared_bytes_max)
        self._held_seconds_max = held_seconds_max
        self._gathering: Group | None = None
        self._latest: dict[Place, Group] = {}  # of those that aren't done
        self._running: set[asyncio.Task[None]] = set()
        self._wary: dict[Place, int] = {}

    async def submit(self, batch: RecordBatch) -> None:
        """Take a batch, as soon as there is room; batches of one partition are applied in the order they came."""
        while self._gathering is not None and not self._gathering.takes(batch):
            await self._gathering.begun.wait()
        group = self._gathering
        if group is None:
            group = self._gathering = Group(*self._shared_max)
            task = asyncio.create_task(self._run(group), name=f"apply from {batch.topic}[{batch.partition}] on")
            self._running.add(task)
            task.add_done_callback(self._ended)
        group.add(batch, self._latest.get(batch.place))
        self._latest[batch.place] = group
        if group.is_full:
            await group.begun.wait()

    async def wait_idle(self, timeout_seconds: float) -> bool:
        """Wait until every batch taken is applied or given up; False when that took longer."""
        running = set(self._running)
        if not running:
            return True
        _, pending = await asyncio.wait(running, timeout=timeout_seconds)
        return not pending

    async def _run(self, group: Group) -> None:
        """Apply a group's batches."""
        async with self._room:
            await group.wait_for_earlier(unless_full=True)
            self._gathering = None
            group.begun.set()
            batches = list(group.batches.values())
            with self._spans.applying(batches):
                jobs = [job for batch in batches if (job := await self._begin(batch)) is not None]
                await group.wait_for_earlier(unless_full=False)
                if len(jobs) == 1 or not await self._apply_together(jobs):
                    await asyncio.gather(*map(self._apply_alone, jobs))
            group.done()
            self._latest = {place: latest for place, latest in self._latest.items() if latest is not group}

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Let no error be lost that nobody has foreseen: its partitions would stand still without a word."""
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.critical("%s failed", task.get_name(), exc_info=error)
            self._consumer().halt(Halt(f"{task.get_name()}: {type(error).__name__}: {error}"))

    async def _begin(self, batch: RecordBatch) -> Job | None:
        with self._halting(batch), self._spans.decoding(batch):
            started = monotonic()
            items = await self._decode(batch)
            part = Slice(batch.topic, batch.partition, batch.claim.epoch, batch.start, batch.end, items)
            return Job(batch, part, started, monotonic())
        return None

    async def _apply_together(self, jobs: Sequence[Job]) -> bool:
        """Try once to apply them in one transaction; False where each needs one of its own."""
        live = [job for job in jobs if not job.batch.claim.void]
        if len(live) <= 1:
            return not live
        check_known = any(self._wary.get(job.part.place, 0) > 0 for job in live)
        try:
            parts = [job.part for job in live]
            async with self._connection(parts) as connection:
                outcomes = await self._projector.apply(connection, parts, check_known=check_known)
        except Exception as error:  # noqa: BLE001 - which of them it is about shows when each is tried alone
            log.info("%d batches can't share a transaction: %s", len(live), type(error).__name__)
            return False
        for job, outcome in zip(live, outcomes, strict=True):
            with self._halting(job.batch):
                self._settle(job, outcome)
        return True

    async def _apply_alone(self, job: Job) -> None:
        with self._halting(job.batch), self._spans.alone(job.batch):
            outcome = await self._apply(job.batch.claim, job.part)
            if outcome is not None:
                self._settle(job, outcome)

    def _connection(self, parts: Sequence[Slice]) -> AbstractAsyncContextManager[Any]:
        """Take a connection, for one transaction with these."""
        return self._spans.transaction(self._pool().acquire(timeout=ACQUIRE_SECONDS_MAX), parts)

    @contextmanager
    def _halting(self, batch: RecordBatch) -> Iterator[None]:
        """Let nothing out: what can't be retried ends the process."""
        try:
            yield
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
                self._progress.goes_on(claim.topic, claim.partition)
                return True
        return False

    async def _apply(self, claim: Claim, part: Slice) -> Outcome | None:
        """Apply a slice, again and again while the database is away; None once the claim is over."""
        wait = BACKOFF_SECONDS_MIN
        check_known = self._wary.get(part.place, 0) > 0
        before, trial, repetitions = NOTHING, None, 0
        while not claim.void:
            began: float | None = None
            try:
                async with self._connection([part]) as connection:
                    began = monotonic()
                    (outcome,) = await self._projector.apply(connection, [part], check_known=check_known, trial=trial)
            except Exception as error:
                if seen_before(error) and repetitions < REPETITIONS_MAX:
                    # Looked for already, it has just come in by another partition: the next look finds it.
                    check_known, repetitions = True, repetitions + 1
                    self._wary[part.place] = WARY_BATCHES
                elif isinstance(error, TooMuchAside) or (len(part.items) > 1 and self._is_too_much(error, began)):
                    return await self._divide(claim, part)
                elif transient(error):
                    self._progress.failing(part.topic, part.partition, f"Postgres: {error or type(error).__name__}")
                    wait = await self._back_off(wait, "database")
                elif isinstance(error, Retry):
                    # An event that was put aside long ago may need a schema that this process hasn't asked for yet.
                    self._progress.failing(part.topic, part.partition, f"schema registry: {error}")
                    wait = await self._back_off(wait, "registry")
                elif refused_data(error):
                    trial = self._tried(trial, part, error)
                else:
                    raise
            else:
                if not outcome.unfinished:
                    # A record that took several transactions has met itself in the log, which is no repetition.
                    return outcome if before is NOTHING else _added(before, replace(outcome, duplicates=0))
                self._progress.moving(part.topic, part.partition)
                before, wait, repetitions = _added(before, outcome), BACKOFF_SECONDS_MIN, 0
                trial = trial and Trial(trial.records * 2)
        return None

    async def _divide(self, claim: Claim, part: Slice) -> Outcome | None:
        """Apply it by halves, until there is little enough, or the record is alone that makes the trouble."""
        middle = len(part.items) // 2
        at = part.items[middle].offset
        first = await self._apply(claim, replace(part, end=at, items=part.items[:middle]))
        if first is None or first.verdict not in ("applied", "applied_before"):
            return first
        self._progress.moving(part.topic, part.partition)
        second = await self._apply(claim, replace(part, start=at, items=part.items[middle:]))
        return None if second is None else reduce(_added, (first, second))

    def _is_too_much(self, error: BaseException, began: float | None) -> bool:
        """Tell whether less of it might work: a record is refused, or the transaction was ended for its length."""
        if refused_data(error):
            return True
        # Whom Postgres has ended may learn only that the connection is gone. A lock is waited for at any length.
        if began is None or isinstance(error, asyncpg.LockNotAvailableError):
            return False
        return transient(error) and monotonic() - began >= self._held_seconds_max

    @staticmethod
    def _tried(trial: Trial | None, part: Slice, error: BaseException) -> Trial | None:
        """Say how to go on where Postgres has refused a record, or one of those that it sets free, and put it aside."""
        problem = why_refused(error)
        if trial is None:
            return Trial(1)
        if trial.problem is None:
            return Trial(trial.records // 2) if trial.records > 1 else Trial(1, problem)
        (item,) = part.items  # it wasn't the first of those behind it
        if item.event is None:
            raise Halt(f"{part.topic}[{part.partition}] offset {item.offset}: can't even be put aside: {error}")
        item.event, item.problem = None, problem
        return None

    async def _back_off(self, seconds: float, why: str) -> float:
        self._metrics.retried(why)
        self._spans.retrying(why)
        await asyncio.sleep(seconds)
        return min(seconds * 2, BACKOFF_SECONDS_MAX)

    def _settle(self, job: Job, outcome: Outcome) -> None:
        batch, place, consumer = job.batch, job.part.place, self._consumer()
        self._wary[place] = max(0, self._wary.get(place, 0) - 1)
        self._spans.settled(batch, outcome)
        if outcome.verdict == "fenced":
            consumer.fence(batch.claim)
        elif outcome.verdict == "lost":
            consumer.reclaim(batch.claim)
        else:
            self._progress.moved(batch)
            consumer.applied(batch)
        self._metrics.applied(batch, outcome, decode=job.decoded - job.started, total=monotonic() - batch.polled_at)


def _added(one: Outcome, other: Outcome) -> Outcome:
    counts: dict[str, Any] = {
        name: getattr(one, name) + getattr(other, name)
        for name in ("events", "duplicates", "parked", "waiting", "conflicts")
    }
    return replace(other, **counts, last_event_time=other.last_event_time or one.last_event_time)
