"""What a replay does, step by step: build, catch up, then compare or switch."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Literal

import asyncpg

from sitelog.agents._refold import APPLICATION, AT_WORK, Span, counting_on, refold
from sitelog.agents._replay_topic import Stretch, TopicFold
from sitelog.projections import _read_models, _switch
from sitelog.projections._compare import Difference, compare
from sitelog.projections._database import connect, transient
from sitelog.projections._install import owner_of
from sitelog.projections._projection import NEXT
from sitelog.projections._rebuild import FreshRows, LogFold, LogPartition, learn
from sitelog.projections._registry import Plan
from sitelog.projections._table import Table
from sitelog.streams.codec import Codec
from sitelog.streams.errors import Halt, UnavailableError
from sitelog.streams.registry import SchemaRegistry
from sitelog.streams.settings import Settings

FIRST_WAIT_SECONDS: Final = 0.25
"""The first attempts queue more briefly for a lock than Postgres takes to see a deadlock: they hardly end a reader."""

Source = Literal["log", "topic"]
Progress = Callable[[int, int], None]
"""Told from time to time how many events are done, of how many."""

POSITIONS: Final = """
SELECT
    p.log_partition,
    p.topic,
    p.partition,
    coalesce(o.log_seq, 0) AS log_seq,
    coalesce(o.next_offset, 0) AS next_offset
FROM sitelog.log_partition AS p
LEFT JOIN sitelog.consumer_position AS o ON o.log_partition = p.log_partition AND o.consumer = $1
ORDER BY p.log_partition
"""

# Also of partitions that nobody has claimed yet: a row that isn't there can't be locked.
HOLD_WORKERS: Final = "LOCK TABLE sitelog.consumer_position IN EXCLUSIVE MODE"


class _BehindError(Exception):
    """Too many events have come meanwhile for a short switch."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be replayed, from where, and whether the outcome is only compared."""

    read_models: tuple[str, ...]
    source: Source
    verify: bool


class ReplayRun:
    """One replay, over a connection of the owner's that nobody shares REPLAYING and AT_WORK with.

    `planned` has more read models than are ordered where it must.
    """

    def __init__(
        self, settings: Settings, planned: Plan, order: Order, connection: asyncpg.Connection, progress: Progress
    ) -> None:
        self._settings = settings
        self._order = order
        # What the worker put aside depended on every read model.
        self.planned = planned if order.source == "topic" else planned.named(order.read_models)
        self._topics = {event.topic for event, handlers in self.planned.handlers.items() if handlers}
        self._known = [Table(projection) for projection in planned.projections]
        self._tables = [Table(projection) for projection in self.planned.projections]
        self._chosen = [table for table in self._tables if table.projection.name in order.read_models]
        self._connection = connection
        self._progress = progress
        self._created: dict[str, int] = {}
        self._done: dict[LogPartition, int] = {}
        self.events = 0
        self.rows: dict[str, int] = {}

    async def run(self) -> tuple[Difference, ...] | None:
        """Build and compare, or build and switch: then return None."""
        connection = self._connection
        if not self._order.verify:
            await _switch.refuse_extras(connection, self._chosen)
        # Also of read models that this one doesn't build: whoever left them may never run again.
        await _switch.drop_fresh(connection, self._known)
        try:
            self._created = await _switch.create_fresh(connection, self._tables)
            if self._order.verify:
                await _switch.hide_fresh(connection, self._tables)
            await connection.execute("SELECT pg_advisory_unlock($1)", AT_WORK)
            if self._order.source == "topic":
                await self._fold_topics()
            await self._catch_up()
            await _switch.finish_fresh(connection, self._tables)
            await self._count_rows()
            await self._catch_up()  # with what has come while full tables were indexed and counted
            if self._order.verify:
                return await self._compare()
            await self._switch()
        finally:
            with suppress(asyncpg.InterfaceError, asyncpg.PostgresError, OSError):
                await _switch.drop_fresh(connection, self._tables)
        return None

    async def _count_rows(self) -> None:
        """Count the rows of each ordered read model before it switches: after that no failure may hide that it has."""
        # The name is a literal of the read model's file.
        count = "SELECT count(*) FROM public.{}"
        for table in self._chosen:
            built = table if self._order.verify else Table(table.projection, NEXT)
            self.rows[table.projection.name] = await self._connection.fetchval(count.format(built.name))

    async def _spans(self, connection: Any) -> list[Span]:
        """Return what is left to fold, by the positions as the connection sees them."""
        spans = []
        for row in await connection.fetch(POSITIONS, _read_models.PROJECTOR):
            part = LogPartition(row["log_partition"], row["topic"], row["partition"])
            spans.append(Span(part, self._done.get(part, 0), row["log_seq"]))
        return spans

    def _folded(self, span: Span) -> bool:
        return span.part.topic in self._topics

    async def _fold_topics(self) -> None:
        rows = await self._connection.fetch(POSITIONS, _read_models.PROJECTOR)
        stretches = [
            Stretch(Span(LogPartition(row[0], row[1], row[2]), 0, row["log_seq"]), row["next_offset"])
            for row in rows
            if row["next_offset"]
        ]
        self._count(stretch.span for stretch in stretches)
        settings = self._settings.kafka_config.schema_registry
        async with _opened(SchemaRegistry(settings) if settings else None) as registry:
            fold = TopicFold(self._connection, self._settings, self.planned, Codec(registry))
            await fold.run(stretches, self._tell)
        self._done = {stretch.span.part: stretch.span.until for stretch in stretches}

    async def _catch_up(self) -> None:
        """Fold what the log has, until so little is left that it can be folded while the workers wait."""
        while True:
            spans = await self._spans(self._connection)
            folded = [span for span in spans if self._folded(span)]
            if self._done and sum(span.events for span in folded) <= self._settings.replay.switch_events_max:
                return
            before = self.events
            self._count(folded)
            await refold(self._settings, self.planned, self._created, folded, counting_on(self._tell, before))
            self._done |= {span.part: span.until for span in spans}

    def _count(self, spans: Iterable[Span]) -> None:
        self.events += sum(span.events for span in spans)

    def _tell(self, done: int) -> None:
        self._progress(done, self.events)

    async def _fold_rest(self, connection: Any) -> dict[int, int]:
        """Fold what is left, in the caller's transaction; return the log seqs that the tables are at then."""
        spans = await self._spans(connection)
        folded = [span for span in spans if self._folded(span) and span.events]
        if sum(span.events for span in folded) > self._settings.replay.switch_events_max:
            raise _BehindError
        codec = Codec()
        await learn(connection, codec)
        fold = LogFold(codec, self._settings.replay)
        for span in folded:
            # Nothing may be written twice in one transaction: there is room for all that so few events touch.
            rows = FreshRows(connection, self.planned, span.part.number, rows_max=2**62, started=span.after > 0)
            await fold.run(rows, span.part, span.after, span.until, lambda _: None)
            await rows.flush()
        return {span.part.number: span.until for span in spans}

    async def _compare(self) -> tuple[Difference, ...]:
        """Compare at one position: a snapshot has the rows and the position that belong together."""
        while True:
            try:
                async with self._connection.transaction(isolation="repeatable_read"):
                    await self._fold_rest(self._connection)
                    found = [await compare(self._connection, table) for table in self._chosen]
            except _BehindError:
                await self._catch_up()
            else:
                return tuple(difference for difference in found if difference is not None)

    async def _switch(self) -> None:
        """Switch as soon as every lock can be had at once; give up when that takes too long."""
        limits = self._settings.replay
        deadline = monotonic() + limits.switch_seconds_max
        wait = FIRST_WAIT_SECONDS
        while True:
            try:
                await self._try_switch(min(wait, limits.switch_lock_seconds))
            except _BehindError as error:
                reason = f"workers add more than {limits.switch_events_max} events in the time of a switch"
                problem: Exception = error
            except Exception as error:
                if not (transient(error) or isinstance(error, UnavailableError)):
                    raise
                if await self._switched():
                    return
                reason, problem = f"{type(error).__name__}: {error}", error
                await asyncio.sleep(wait)
                wait = min(wait * 2, limits.switch_lock_seconds)
            else:
                return
            if monotonic() > deadline:
                raise Halt(
                    f"no switch within {limits.switch_seconds_max:.0f} s: {reason}. The tables in use stay: end what "
                    "keeps them, such as a long query or a transaction that was left open, and replay again"
                ) from problem
            began = monotonic()
            await self._catch_up()
            deadline += monotonic() - began  # folding is no waiting for somebody

    async def _switched(self) -> bool:
        """Tell whether an attempt came through, and only Postgres's answer was lost."""
        # The attempt shares this lock until Postgres is done with it, which may be later than we are.
        await self._connection.execute("SELECT pg_advisory_lock($1)", AT_WORK)
        await self._connection.execute("SELECT pg_advisory_unlock($1)", AT_WORK)
        return await _switch.in_use(self._connection, self._created, self._chosen)

    async def _try_switch(self, lock_seconds: float) -> None:
        # A worker's timeouts: if this process is suspended now, Postgres gives its locks back.
        owner, worker = owner_of(self._settings), self._settings.worker
        connection = await connect(owner, application=APPLICATION, worker=worker)
        try:
            async with connection.transaction():
                await connection.execute("SELECT set_config('lock_timeout', $1, TRUE)", f"{lock_seconds * 1000:.0f}ms")
                # The lock that keeps other replays away is another connection's, and may be lost by now.
                await connection.execute("SELECT pg_advisory_xact_lock_shared($1)", AT_WORK)
                await connection.execute(HOLD_WORKERS)
                await _switch.refuse_others(connection, self._created)
                log_seqs = await self._fold_rest(connection)
                await _switch.switch(connection, self._chosen)
                await _read_models.built(connection, [table.projection for table in self._chosen], log_seqs)
        finally:
            connection.terminate()


@asynccontextmanager
async def _opened(registry: SchemaRegistry | None) -> AsyncIterator[SchemaRegistry | None]:
    if registry is None:
        yield None
    else:
        async with registry:
            yield registry
