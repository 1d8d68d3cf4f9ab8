"""Applies batches as they come: several at once, each partition's in order, the same again until it works."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Final, Protocol

from sitelog.agents._applier import Applier
from sitelog.agents._group import Group
from sitelog.agents._metrics import Metrics
from sitelog.agents._patience import Patience
from sitelog.agents._progress import Progress
from sitelog.agents._spans import NO_SPANS, Spans
from sitelog.projections._items import Item, decode
from sitelog.projections._pieces import pieces
from sitelog.projections._slice import Outcome, Slice
from sitelog.streams._batch import Claim, Place, RecordBatch, Wait
from sitelog.streams.codec import Codec
from sitelog.streams.errors import Halt, SchemasAway

log = logging.getLogger("sitelog.pipeline")

DECODE_AT_ONCE: Final = 250
"""Records decoded before others may use the event loop: about 3 ms."""

IN_PLACE_SECONDS_MAX: Final = 1.0
"""For which those behind a batch wait with it for the schema registry; then its partition waits alone."""

NO_ANSWER: Final = "schema registry: no answer yet"


class Consumer(Protocol):
    """What the pipeline tells the transport."""

    def applied(self, batch: RecordBatch) -> None:
        """Take note that a batch is in Postgres."""

    def fence(self, claim: Claim) -> None:
        """Read no more under this claim."""

    def reclaim(self, claim: Claim) -> None:
        """Claim anew."""

    def put_off(self, claim: Claim, until: Wait) -> None:
        """Claim anew once this has returned."""

    def halt(self, halt: Halt) -> None:
        """End the process."""


@dataclass(frozen=True, slots=True)
class Job:
    """A batch, decoded; `started` and `decoded` are monotonic seconds."""

    batch: RecordBatch
    part: Slice
    started: float
    decoded: float


@dataclass(frozen=True, slots=True)
class Unread:
    """A batch whose partition has to wait for schemas."""

    batch: RecordBatch
    away: SchemasAway


class Pipeline:
    """Takes batches from the agent and puts them into Postgres, with at most `in_flight_max` transactions at once.

    While these are under way, batches gather, until they have `shared_records_max` records or `shared_bytes_max`, and
    then share the next one: most of what a transaction costs doesn't depend on how much is in it.
    """

    def __init__(
        self,
        applier: Applier,
        codec: Codec,
        *,
        consumer: Callable[[], Consumer],
        metrics: Metrics,
        progress: Progress,
        spans: Spans = NO_SPANS,
        in_flight_max: int,
        shared_records_max: int,
        shared_bytes_max: int,
    ) -> None:
        self._applier = applier
        self._codec = codec
        self._consumer = consumer
        self._metrics = metrics
        self._progress = progress
        self._spans = spans
        self._room = asyncio.Semaphore(in_flight_max)
        self._shared_max = (shared_records_max, shared_bytes_max)
        self._gathering: Group | None = None
        self._latest: dict[Place, Group] = {}  # of those that aren't done
        self._running: set[asyncio.Task[None]] = set()
        self._schemas_away: set[int] = set()

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
                begun = [one for batch in batches if (one := await self._begin(batch)) is not None]
                await group.wait_for_earlier(unless_full=False)
                for one in begun:
                    if isinstance(one, Unread):
                        self._put_off(one.batch, one.away)
                jobs = [one for one in begun if isinstance(one, Job)]
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

    async def _begin(self, batch: RecordBatch) -> Job | Unread | None:
        with self._halting(batch), self._spans.decoding(batch):
            started = monotonic()
            try:
                items = await self._decode(batch)
            except SchemasAway as away:
                self._schemas_away |= away.schema_ids
                return Unread(batch, away)
            part = Slice(batch.topic, batch.partition, batch.claim.epoch, batch.start, batch.end, items)
            return Job(batch, part, started, monotonic())
        return None

    async def _apply_together(self, jobs: Sequence[Job]) -> bool:
        """Try once to apply them in one transaction; False where each needs one of its own."""
        live = [job for job in jobs if not job.batch.claim.void]
        if len(live) <= 1:
            return not live
        outcomes = await self._applier.together([job.part for job in live])
        if outcomes is None:
            return False
        for job, outcome in zip(live, outcomes, strict=True):
            with self._halting(job.batch):
                self._settle(job, outcome)
        return True

    async def _apply_alone(self, job: Job) -> None:
        with self._halting(job.batch), self._spans.alone(job.batch):
            try:
                outcome = await self._applier.alone(job.batch.claim, job.part)
            except SchemasAway as away:  # of what was put aside, and goes on with this batch
                self._put_off(job.batch, away)
            else:
                if outcome is not None:
                    self._settle(job, outcome)

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
            await self._prepare(batch.claim, [record.value for record in records])
            if batch.claim.void:
                return []  # nobody wants them any more
            items += decode(records, batch.topic, self._codec)
            await asyncio.sleep(0)
        return items

    async def _prepare(self, claim: Claim, values: list[bytes | None]) -> None:
        """Ask the schema registry for what isn't known yet; raises SchemasAway where it doesn't answer soon."""
        missing = frozenset(self._codec.missing_schemas(values))
        if not missing:
            return
        if missing & self._schemas_away:
            raise SchemasAway(NO_ANSWER, missing)  # somebody else has waited for it in vain
        patience = Patience(self._metrics, self._spans)
        deadline = monotonic() + IN_PLACE_SECONDS_MAX
        while not claim.void:
            try:
                async with asyncio.timeout(deadline - monotonic()):
                    await self._codec.prepare(values)
            except TimeoutError:
                raise SchemasAway(NO_ANSWER, missing) from None
            except SchemasAway as away:
                if monotonic() + patience.seconds > deadline:
                    raise
                self._progress.failing(claim.topic, claim.partition, str(away))
                await patience.wait("registry")
            else:
                break
        self._progress.goes_on(claim.topic, claim.partition)

    async def _schemas_known(self, claim: Claim, schema_ids: frozenset[int]) -> None:
        """Wait until the schema registry has answered for these."""
        patience = Patience(self._metrics, NO_SPANS)
        try:
            while True:
                try:
                    await self._codec.prepare_ids(schema_ids)
                except SchemasAway as away:
                    self._progress.put_off(claim.topic, claim.partition, str(away))
                    await patience.wait("registry")
                else:
                    return
        finally:
            self._schemas_away -= schema_ids

    def _put_off(self, batch: RecordBatch, away: SchemasAway) -> None:
        """Let a partition wait for schemas by itself: nobody waits behind it."""
        claim = batch.claim
        if claim.void or claim.fenced:
            return
        self._progress.seen(claim.topic, claim.partition, claim.applied_offset, batch.highwater, claim.oldest_ms)
        self._progress.put_off(claim.topic, claim.partition, str(away))
        self._consumer().put_off(claim, lambda: self._schemas_known(claim, away.schema_ids))

    def _settle(self, job: Job, outcome: Outcome) -> None:
        batch, consumer = job.batch, self._consumer()
        self._applier.settled(job.part)
        self._spans.settled(batch, outcome)
        if outcome.verdict == "fenced":
            consumer.fence(batch.claim)
        elif outcome.verdict == "lost":
            consumer.reclaim(batch.claim)
        else:
            self._progress.moved(batch)
            consumer.applied(batch)
        decode, total = job.decoded - job.started, monotonic() - batch.polled_at
        self._metrics.settled(batch, outcome.verdict, decode=decode, total=total)
