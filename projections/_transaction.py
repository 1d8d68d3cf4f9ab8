"""One record batch, one transaction: position, log, read models, parked events and conflicts, or nothing."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from zlib import crc32

from sitelog.projections import _conflicts, _log, _positions
from sitelog.projections._fold import Fold
from sitelog.projections._intake import Intake, Taken
from sitelog.projections._items import Item, reread
from sitelog.projections._merge import Policy
from sitelog.projections._parked import Shelf, Status
from sitelog.projections._pieces import pieces
from sitelog.projections._positions import Locked
from sitelog.projections._registry import Plan
from sitelog.projections._tables import Tables
from sitelog.streams.codec import Codec

TAKEN_AT_ONCE: Final = 500
"""Records folded before others may use the event loop: about 3 ms."""

Verdict = Literal["applied", "applied_before", "fenced", "lost"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch.

    `applied_before`: an earlier try had committed although its connection broke. `fenced`: somebody else has
    claimed the partition since. `lost`: a batch before this one never arrived. In these three nothing was
    written, and the counts are 0.
    """

    verdict: Verdict
    events: int = 0
    duplicates: int = 0
    parked: int = 0
    waiting: int = 0
    conflicts: int = 0
    last_event_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """Items `[start, end)` of one partition, to be applied under the claim of `epoch`."""

    topic: str
    partition: int
    epoch: int
    start: int
    end: int
    items: Sequence[Item]


@dataclass(frozen=True, slots=True)
class Work:
    """A transaction under way: what was loaded, and what its records come to."""

    shelf: Shelf
    fold: Fold
    intake: Intake


class Projector:
    """Applies slices of a partition for one consumer. `now` is asked once per slice for the ingest time."""

    def __init__(self, plan: Plan, codec: Codec, *, consumer: str, policy: Policy, now: Callable[[], datetime]) -> None:
        self._plan = plan
        self._codec = codec
        self._consumer = consumer
        self._policy = policy
        self._now = now
        self._tables = Tables(plan)
        self._stored_schemas: set[int] = set()

    async def apply(self, connection: Any, part: Slice, *, check_known: bool = False) -> Outcome:
        """Apply a slice, or find that it must not be applied.

        Without `check_known` an event that is in the log already, or a record that was put aside already, makes
        the transaction fail, see `_log.seen_before`: both are rare, and looking for them in every batch isn't free.
        """
        async with connection.transaction():
            position = await _positions.lock(connection, self._consumer, part.topic, part.partition)
            verdict = judge(position, part)
            if verdict != "applied" or position is None:
                return Outcome(verdict)
            work = await self._take(connection, position, part, check_known=check_known)
            await self.write(connection, position, work)
            taken = work.intake.taken
            position.next_offset = part.end
            position.anchor = crc32(part.items[-1].value or b"")
            position.last_event_time = taken.last_event_time or position.last_event_time
            await _positions.move(connection, self._consumer, position)
        self._stored_schemas |= taken.fingerprints
        return _outcome(taken)

    async def _take(self, connection: Any, position: Locked, part: Slice, *, check_known: bool) -> Work:
        shelf = Shelf(connection, self._consumer, position.log_partition)
        items = await shelf.unseen(part.items) if check_known else part.items
        stopped, waiting = await self._stopped(shelf, position, part.topic, items)
        loaded = [*items, *(item for queue in waiting.values() for item in queue)]
        work = await self.begin(shelf, position, loaded, stopped=stopped, waiting=waiting, check_known=check_known)
        work.intake.taken.duplicates += len(part.items) - len(items)
        for piece in pieces(items, TAKEN_AT_ONCE):
            work.intake.take_all(piece)
            await asyncio.sleep(0)
        return work

    async def begin(
        self,
        shelf: Shelf,
        position: Locked,
        items: Sequence[Item],
        *,
        stopped: dict[str, Status],
        waiting: dict[str, list[Item]],
        check_known: bool,
    ) -> Work:
        """Load what the items may touch, so that they can be taken one by one; `stopped` and the rest as in Intake."""
        events = [item.event for item in items if item.event is not None]
        fold = Fold(self._plan, self._policy)
        await self._tables.load(shelf.connection, fold, events)
        # What is put behind a stopped entity makes no append fail: it is looked for there in any case.
        suspects = events if check_known else [event for event in events if stopped and event.entity_id in stopped]
        known = await _log.known(shelf.connection, [event.event_id for event in suspects]) if suspects else ()
        intake = Intake(
            fold,
            position.log_partition,
            position.log_seq,
            self._now(),
            stopped=stopped,
            waiting=waiting,
            known=known,
        )
        return Work(shelf, fold, intake)

    async def _stopped(
        self, shelf: Shelf, position: Locked, topic: str, items: Sequence[Item]
    ) -> tuple[dict[str, Status], dict[str, list[Item]]]:
        """Look which entities are stopped, and take those events along that a creation here may set free."""
        if position.parked_entities == 0:
            return {}, {}
        stopped = await shelf.stopped({item.entity_id for item in items})
        created = {item.entity_id for item in items if item.event is not None and self._plan.creates(type(item.event))}
        aside = await shelf.open({entity for entity in created if stopped.get(entity) == "waiting"})
        await self._codec.prepare([item.value for item, _ in aside])
        waiting: dict[str, list[Item]] = {}
        for item, _ in aside:
            waiting.setdefault(item.entity_id, []).append(reread(item, topic, self._codec))
        return stopped, waiting

    async def write(self, connection: Any, position: Locked, work: Work) -> None:
        """Write everything that was taken, and bring the locked position up to it; writing that is the caller's."""
        taken = work.intake.taken
        now = self._now()
        await self._store_schemas(connection, taken.fingerprints)
        await _log.append(connection, position.log_partition, taken.log, work.intake.now)
        await self._tables.write(connection, work.fold, position.log_partition)
        await _conflicts.record(connection, taken.conflicts)
        if taken.parked or taken.closed:
            await work.shelf.put(list(taken.parked.values()), now)
            await work.shelf.close(taken.closed, now, self._consumer)
            position.parked_entities = await work.shelf.stopped_entities()
        position.log_seq = work.intake.log_seq

    async def _store_schemas(self, connection: Any, fingerprints: set[int]) -> None:
        """Keep the writer schemas that the log hasn't had before, such as those that a registry gave."""
        new = fingerprints - self._stored_schemas
        if new:
            await _log.store_schemas(connection, [s for s in self._codec.schemas() if s[0] in new])


def judge(position: Locked | None, part: Slice) -> Verdict:
    """Compare a slice with the locked position: only the right epoch at the right offset may write."""
    if position is None or position.epoch != part.epoch:
        return "fenced"
    if position.next_offset == part.start:
        return "applied"
    return "applied_before" if position.next_offset == part.end else "lost"


def _outcome(taken: Taken) -> Outcome:
    statuses = [row.status for row in taken.parked.values() if row.item.parked_id is None]
    return Outcome(
        "applied",
        events=len(taken.log),
        duplicates=taken.duplicates,
        parked=statuses.count("parked"),
        waiting=len(statuses) - statuses.count("parked"),
        conflicts=len(taken.conflicts),
        last_event_time=taken.last_event_time,
    )
