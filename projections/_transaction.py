"""Record batches in one transaction: positions, log, read models, parked events and conflicts, or nothing."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, Self
from zlib import crc32

from sitelog.projections import _at_once, _conflicts, _log, _positions
from sitelog.projections._aside import Loader, TooMuchAside, Trial
from sitelog.projections._fold import Fold
from sitelog.projections._insert import Filled
from sitelog.projections._intake import Aside, Intake, Taken
from sitelog.projections._items import Item
from sitelog.projections._merge import Policy
from sitelog.projections._parked import Limits, Shelf
from sitelog.projections._pieces import pieces
from sitelog.projections._positions import Locked
from sitelog.projections._registry import Plan
from sitelog.projections._slice import Outcome, Slice, judge
from sitelog.projections._tables import Tables
from sitelog.streams._batch import Place
from sitelog.streams._event import Event
from sitelog.streams.codec import Codec
from sitelog.streams.errors import Park
from sitelog.streams.settings import WorkerSettings

TAKEN_AT_ONCE: Final = 500
"""Records folded before others may use the event loop: about 3 ms."""

AT_ONCE_RECORDS_MAX: Final = 200
AT_ONCE_BYTES_MAX: Final = 1_048_576
"""From so many records or bytes on, what COPY saves is more than what its exchanges with Postgres cost."""


@dataclass(frozen=True, slots=True)
class Lot:
    """What one partition has in a transaction: records, and what was put aside that they may set free."""

    position: Locked
    shelf: Shelf
    items: Sequence[Item]
    aside: Aside


@dataclass(frozen=True, slots=True)
class Work:
    """A lot whose rows are loaded, and what its records come to."""

    lot: Lot
    fold: Fold
    intake: Intake

    @property
    def log_partition(self) -> int:
        """Whose records they are."""
        return self.lot.position.log_partition

    @property
    def taken(self) -> Taken:
        """What came of the records."""
        return self.intake.taken


class Projector:
    """Applies slices of partitions for one consumer.

    `now` is asked once per transaction for the ingest time; `limits` are for what goes on after it was put aside.
    """

    def __init__(
        self,
        plan: Plan,
        codec: Codec,
        *,
        consumer: str,
        policy: Policy,
        limits: Limits,
        now: Callable[[], datetime],
    ) -> None:
        self._plan = plan
        self._codec = codec
        self._consumer = consumer
        self._policy = policy
        self._now = now
        self.aside = Loader(plan, codec, limits)
        self._tables = Tables(plan)
        self._stored_schemas: set[int] = set()
        self._left: dict[Place, Locked] = {}  # positions as the last transaction has left them

    @classmethod
    def configured(cls, plan: Plan, codec: Codec, consumer: str, worker: WorkerSettings) -> Self:
        """Return the one that workers have by their settings, and whoever does a part of their work."""
        return cls(
            plan,
            codec,
            consumer=consumer,
            policy=worker.conflict_policy,
            limits=Limits(worker.batch_records_max, worker.batch_bytes_max),
            now=lambda: datetime.now(UTC),
        )

    async def apply(
        self, connection: Any, parts: Sequence[Slice], *, check_known: bool = False, trial: Trial | None = None
    ) -> list[Outcome]:
        """Apply slices of different partitions, all in one transaction, but for those that must not be applied.

        Returns what became of each. Without `check_known` an event that is in the log already, or a record that was
        put aside already, makes the transaction fail, see `_log.seen_before`: both are rare, and looking for them in
        every batch isn't free. Raises TooMuchAside where the slices have to be smaller, or
        apart. `trial` is for a single record.
        """
        if not check_known and (applied := await self._apply_at_once(connection, parts)) is not None:
            return applied
        async with connection.transaction():
            positions = await _positions.lock_all(connection, self._consumer, [part.place for part in parts])
            outcomes = [Outcome(judge(positions.get(part.place), part)) for part in parts]
            if any(outcome.verdict in {"fenced", "lost"} for outcome in outcomes):
                self._forget()
            going = [part for part, outcome in zip(parts, outcomes, strict=True) if outcome.verdict == "applied"]
            if not going:
                return outcomes
            works = await self._take(connection, positions, going, check_known=check_known, trial=trial)
            await self.write(connection, works)
            _advance(going, works)
            await _positions.move(connection, self._consumer, [work.lot.position for work in works])
        self._written(going, works)
        of_going = map(_outcome, works)
        return [next(of_going) if outcome.verdict == "applied" else outcome for outcome in outcomes]

    async def _apply_at_once(self, connection: Any, parts: Sequence[Slice]) -> list[Outcome] | None:
        """Load what few records need, and write all that they come to with one statement.

        None, and nothing written, where that can't be: positions must be as this worker has left them, no entity
        stopped (the shelf, which wants a lock, is never asked then), and nothing to be put aside or removed.
        """
        left = [position for part in parts if (position := self._left.get(part.place)) is not None]
        if not _are_few(parts) or len(left) < len(parts) or any(position.parked_entities for position in left):
            return None
        if any(judge(position, part) != "applied" for position, part in zip(left, parts, strict=True)):
            return None
        positions = {part.place: replace(position) for position, part in zip(left, parts, strict=True)}
        works = await self._take(connection, positions, parts, check_known=False)
        inserts = self._inserts(works)
        if inserts is None:
            return None
        _advance(parts, works)
        moved = [work.lot.position for work in works]
        if not await _at_once.write(connection, self._consumer, left, moved, inserts):
            return None
        self._written(parts, works)
        return [_outcome(work) for work in works]

    def _inserts(self, works: Sequence[Work]) -> list[Filled] | None:
        """Return all that was taken as inserts, None where there is more to do than that."""
        if any(work.taken.parked or work.taken.fingerprints - self._stored_schemas for work in works):
            return None
        models = self._tables.filled([(work.log_partition, work.fold) for work in works])
        if models is None:
            return None
        log = _log.filled([(work.log_partition, work.taken.log) for work in works], works[0].intake.now)
        return [log, *models, _conflicts.filled([row for work in works for row in work.taken.conflicts])]

    def _written(self, parts: Sequence[Slice], works: Sequence[Work]) -> None:
        for part, work in zip(parts, works, strict=True):
            self._stored_schemas |= work.taken.fingerprints
            self._left[part.place] = work.lot.position

    def _forget(self) -> None:
        """Forget what was written: it is gone where a database took over that didn't have all of it."""
        self._stored_schemas.clear()
        self._left.clear()

    async def _take(
        self,
        connection: Any,
        positions: Mapping[Place, Locked],
        parts: Sequence[Slice],
        *,
        check_known: bool,
        trial: Trial | None = None,
    ) -> list[Work]:
        lots: list[Lot] = []
        freed: list[Item] = []
        for part in parts:
            position = positions[part.place]
            shelf = Shelf(connection, self._consumer, position.log_partition)
            items = await shelf.unseen(part.items) if check_known else part.items
            aside = Aside()
            if position.parked_entities:
                alone = len(parts) == 1
                aside = await self.aside.for_records(shelf, part.topic, items, alone=alone, trial=trial)
                freed += aside.items()
                if not alone and self.aside.limits.are_exceeded_by(freed):
                    raise TooMuchAside
            lots.append(Lot(position, shelf, items, aside))
        works = await self.begin(connection, lots, check_known=check_known)
        for part, work in zip(parts, works, strict=True):
            work.taken.duplicates += len(part.items) - len(work.lot.items)
            for piece in pieces(work.lot.items, TAKEN_AT_ONCE):
                work.intake.take_all(piece)
                await asyncio.sleep(0)
            await self.take_creations(connection, part.topic, work)
        return works

    async def take_creations(
        self,
        connection: Any,
        topic: str,
        work: Work,
        *,
        refused: Mapping[int | None, Park] = MappingProxyType({}),
        at_most: int | None = None,
    ) -> None:
        """Take creations that are too far back for their turn while those in front wait, which may be for one of them.

        Those in `refused`, by parked id, are problems.
        """
        while (after := work.intake.waits_after) is not None:
            creations = (await self.aside.creations(work.lot.shelf, topic, after))[:at_most]
            if not creations:
                return
            mark(creations, refused)
            events = [item.event for item in creations if item.event is not None]
            await self._tables.load(connection, [(work.fold, events)])
            known = await _log.known(connection, [event.event_id for event in events])
            work.intake.take_creations(creations, known)
            if at_most is not None:
                return

    async def begin(self, connection: Any, lots: Sequence[Lot], *, check_known: bool) -> list[Work]:
        """Load what the lots' items may touch, so that they can be taken one by one."""
        now = self._now()
        folds = [Fold(self._plan, self._policy, lot.position.log_partition) for lot in lots]
        events = [_events(lot) for lot in lots]
        await self._tables.load(connection, zip(folds, events, strict=True))
        # What is put behind a stopped entity makes no append fail: it is looked for there in any case.
        suspects = [
            event.event_id
            for lot, of_lot in zip(lots, events, strict=True)
            for event in of_lot
            if check_known or (lot.aside.stopped and event.entity_id in lot.aside.stopped)
        ]
        known = await _log.known(connection, suspects) if suspects else ()
        return [Work(lot, fold, _intake(lot, fold, now, known)) for lot, fold in zip(lots, folds, strict=True)]

    async def write(self, connection: Any, works: Sequence[Work]) -> None:
        """Write all that was taken; the locked positions are the caller's, but for the entities that are stopped."""
        now = self._now()
        await self._store_schemas(connection, set().union(*(work.taken.fingerprints for work in works)))
        await _log.append(connection, [(work.log_partition, work.taken.log) for work in works], works[0].intake.now)
        await self._tables.write(connection, [(work.log_partition, work.fold) for work in works])
        await _conflicts.record(connection, [row for work in works for row in work.taken.conflicts])
        for work in works:
            await self._put_aside(work, now)

    async def _put_aside(self, work: Work, now: datetime) -> None:
        taken, shelf = work.taken, work.lot.shelf
        if taken.parked or taken.closed:
            await shelf.put(list(taken.parked.values()), now)
            await shelf.close(taken.closed, now, self._consumer)
            work.lot.position.parked_entities = await shelf.stopped_entities()

    async def _store_schemas(self, connection: Any, fingerprints: set[int]) -> None:
        """Keep the writer schemas that the log hasn't had before, such as those that a registry gave."""
        new = fingerprints - self._stored_schemas
        if new:
            await _log.store_schemas(connection, [s for s in self._codec.schemas() if s[0] in new])


def mark(items: Iterable[Item], refused: Mapping[int | None, Park]) -> None:
    """Make problems of those that Postgres is known to refuse, by parked id."""
    for item in items:
        problem = refused.get(item.parked_id)
        if problem is not None:
            item.event, item.problem = None, problem


def _are_few(parts: Sequence[Slice]) -> bool:
    records = sum(len(part.items) for part in parts)
    return records < AT_ONCE_RECORDS_MAX and (
        sum(len(item.value or b"") for part in parts for item in part.items) < AT_ONCE_BYTES_MAX
    )


def _advance(parts: Sequence[Slice], works: Sequence[Work]) -> None:
    """Bring the positions to the ends of the slices, unless a slice has to be applied again."""
    for part, work in zip(parts, works, strict=True):
        position = work.lot.position
        position.log_seq = work.intake.log_seq
        if not work.intake.unfinished:
            position.next_offset = part.end
            position.anchor = crc32(part.items[-1].value or b"")
        position.last_event_time = work.taken.last_event_time or position.last_event_time


def _events(lot: Lot) -> list[Event]:
    return [item.event for item in (*lot.items, *lot.aside.items()) if item.event is not None]


def _intake(lot: Lot, fold: Fold, now: datetime, known: Iterable[str]) -> Intake:
    position = lot.position
    return Intake(fold, position.log_partition, position.log_seq, now, aside=lot.aside, known=known)


def _outcome(work: Work) -> Outcome:
    taken = work.taken
    statuses = [row.status for row in taken.parked.values() if row.item.parked_id is None]
    return Outcome(
        "applied",
        events=len(taken.log),
        duplicates=taken.duplicates,
        parked=statuses.count("parked"),
        waiting=len(statuses) - statuses.count("parked"),
        conflicts=len(taken.conflicts),
        unfinished=work.intake.unfinished,
        last_event_time=taken.last_event_time,
    )
