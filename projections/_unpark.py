"""Puts stopped entities in motion again: their parked events, in their order, exactly once, beside running workers."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sitelog.projections import _positions
from sitelog.projections._database import refused_data, why_refused
from sitelog.projections._intake import Aside, Taken
from sitelog.projections._log import seen_before
from sitelog.projections._parked import ParkedRow, Shelf
from sitelog.projections._transaction import Lot, Projector, mark
from sitelog.streams.codec import Codec
from sitelog.streams.errors import Halt, Park, Retry

ENTITIES_AT_ONCE: Final = 500

# An event without key and id stops nobody, and no retry can help it.
STOPPED: Final = """
SELECT e.log_partition, p.topic, p.partition, e.entity_id
FROM sitelog.parked_event AS e
JOIN sitelog.log_partition AS p USING (log_partition)
WHERE e.consumer = $1 AND e.closed_at IS NULL AND e.entity_id <> '' AND ($2::text IS NULL OR e.entity_id = $2)
  AND (e.log_partition, e.entity_id) > ($3, $4)
GROUP BY e.log_partition, p.topic, p.partition, e.entity_id
ORDER BY e.log_partition, e.entity_id
LIMIT $5
"""

OF_EVENT: Final = """
SELECT e.log_partition, p.topic, p.partition, e.entity_id
FROM sitelog.parked_event AS e
JOIN sitelog.log_partition AS p USING (log_partition)
WHERE e.parked_id = $1 AND e.consumer = $2 AND e.closed_at IS NULL
"""

KEPT: Final = "SELECT read_models FROM sitelog.consumer_position WHERE consumer = $1 AND log_partition = $2"

DISCARD: Final = """
UPDATE sitelog.parked_event
SET status = 'discarded', closed_at = $2, closed_by = $3, close_reason = $4
WHERE parked_id = $1 AND closed_at IS NULL
RETURNING parked_id
"""


@dataclass(frozen=True, slots=True)
class Stopped:
    """An entity with parked events, in the partition where it has them."""

    log_partition: int
    topic: str
    partition: int
    entity_id: str


@dataclass(frozen=True, slots=True)
class Discard:
    """What a person decided about one event: never to apply it."""

    parked_id: int
    at: datetime
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of an entity's parked events: `left` are open, `untried` of them weren't taken again.

    `culprit` is the one that stops the entity still, None if it moves.
    """

    entity: Stopped
    applied: int
    repeated: int
    left: int
    untried: int
    culprit: ParkedRow | None


@dataclass(frozen=True, slots=True)
class _Task:
    """One entity's turn: what to discard first, and which events Postgres is known to refuse."""

    entity: Stopped
    discard: Discard | None
    refused: dict[int | None, Park]


class _NotOpenError(Exception):
    """What was to be discarded has been closed by somebody else since it was looked for."""


class Unpark:
    """Applies one consumer's parked events through the transaction of its projector.

    An entity moves on in transactions of a worker's size, each under the row lock of its partition's position: a
    worker that is at this partition waits for one, and goes on. The position's offset, anchor and epoch stay. Between
    two of them the entity is still stopped: those behind are applied before anything new.
    """

    def __init__(self, projector: Projector, codec: Codec, consumer: str, read_models: Collection[str]) -> None:
        """Take the read models that the projector writes, as `_read_models.names` has them."""
        self._projector = projector
        self._codec = codec
        self._consumer = consumer
        self._read_models = set(read_models)

    async def stopped(self, connection: Any, entity_id: str | None = None) -> AsyncIterator[Stopped]:
        """Yield the stopped entities, or the places where this one is stopped; each once, whatever happens to it."""
        after = (0, "")
        while True:
            rows = await connection.fetch(STOPPED, self._consumer, entity_id, *after, ENTITIES_AT_ONCE)
            for row in rows:
                yield Stopped(*row)
            if len(rows) < ENTITIES_AT_ONCE:
                return
            after = (rows[-1]["log_partition"], rows[-1]["entity_id"])

    async def retry(self, connection: Any, entity: Stopped) -> Moved:
        """Take an entity's parked events again; what still can't be applied stays, with the reason of today.

        Raises Retry while a schema registry that is needed can't be reached. Whatever it raises, what was applied
        until then is, and a retry goes on from there.
        """
        return await self._settle(connection, _Task(entity, None, {}))

    async def discard(self, connection: Any, discard: Discard) -> Moved | None:
        """Close one parked event unapplied, for good, and retry those behind it; None where it isn't open."""
        row = await connection.fetchrow(OF_EVENT, discard.parked_id, self._consumer)
        if row is None:
            return None
        try:
            return await self._settle(connection, _Task(Stopped(*row), discard, {}))
        except _NotOpenError:
            return None

    async def _settle(self, connection: Any, task: _Task) -> Moved:
        applied = repeated = 0
        while True:
            moved = await self._attempt(connection, task)
            task = replace(task, discard=None)  # that is committed
            applied += moved.applied
            repeated += moved.repeated
            if not moved.untried or moved.culprit is not None:
                return replace(moved, applied=applied, repeated=repeated)

    async def _attempt(self, connection: Any, task: _Task) -> Moved:
        """Move an entity on by one transaction."""
        while True:
            shelf = Shelf(connection, self._consumer, task.entity.log_partition)
            await self._codec.prepare(await shelf.frames(task.entity.entity_id))
            try:
                async with connection.transaction():
                    return await self._move(connection, task)
            except Retry:
                continue  # one more has come meanwhile, with a schema of its own
            except Exception as error:
                if seen_before(error):
                    continue  # the same event has just come in by another partition: now it is known
                if not refused_data(error):
                    raise
                culprit = await self._culprit(connection, task)
                if culprit is None:
                    raise
                task.refused[culprit] = why_refused(error)

    async def _move(self, connection: Any, task: _Task, only: int | None = None) -> Moved:
        """Move an entity on, or try what the first so many of its events come to."""
        entity = task.entity
        position = await _positions.lock(connection, self._consumer, entity.topic, entity.partition)
        if position is None:
            raise Halt(f"{entity.topic}[{entity.partition}]: {self._consumer} has parked events, but no position")
        await self._refuse_other_read_models(connection, entity)
        shelf = Shelf(connection, self._consumer, entity.log_partition)
        aside = await self._aside(shelf, task)
        in_front = len(aside.items())
        if only is not None:
            for items in aside.waiting.values():
                del items[only:]
        (work,) = await self._projector.begin(connection, [Lot(position, shelf, (), aside)], check_known=True)
        work.intake.release(entity.entity_id)
        if only is None or only > in_front:
            at_most = None if only is None else only - in_front
            await self._projector.take_creations(connection, entity.topic, work, refused=task.refused, at_most=at_most)
        await self._projector.write(connection, [work])
        position.log_seq = work.intake.log_seq
        position.parked_entities = await shelf.stopped_entities()
        await _positions.move(connection, self._consumer, [position])
        left = await shelf.count(entity.entity_id) if entity.entity_id else 0
        return _moved(entity, work.taken, left)

    async def _refuse_other_read_models(self, connection: Any, entity: Stopped) -> None:
        """Raise Halt unless the position's read models are ours: one that we don't know would lack these events."""
        kept = await connection.fetchval(KEPT, self._consumer, entity.log_partition)
        if set(kept) != self._read_models:
            ours, theirs = (", ".join(sorted(one)) or "none" for one in (self._read_models, kept))
            raise Halt(
                f"{entity.topic}[{entity.partition}]: the worker that claimed it keeps the read models {theirs}, this "
                f"release keeps {ours}: use the worker's release, or let a worker of this one claim it first"
            )

    async def _aside(self, shelf: Shelf, task: _Task) -> Aside:
        """Discard what is to be discarded, and return what of the entity is left to take, in this transaction.

        Raises _NotOpenError where somebody else, who had the position's lock before, has closed that event.
        """
        discard = task.discard
        if discard is not None:
            decided = (discard.parked_id, discard.at, discard.by, discard.reason)
            if await shelf.connection.fetchval(DISCARD, *decided) is None:
                raise _NotOpenError
        aside = await self._projector.aside.of_entity(shelf, task.entity.topic, task.entity.entity_id)
        mark(aside.items(), task.refused)
        return aside

    async def _culprit(self, connection: Any, task: _Task) -> int | None:
        """Find the first event that Postgres refuses, by halves, and return its parked id; None if it is none."""
        async with _undone(connection):
            shelf = Shelf(connection, self._consumer, task.entity.log_partition)
            aside = await self._aside(shelf, task)
            items = aside.items()
            if aside.last is not None:
                items += await self._projector.aside.creations(shelf, task.entity.topic, aside.last)
        ids = [item.parked_id for item in items]
        fine, refused = 0, len(ids)
        while refused - fine > 1:
            middle = (fine + refused) // 2
            if await self._is_refused(connection, task, middle):
                refused = middle
            else:
                fine = middle
        return ids[refused - 1] if ids and ids[refused - 1] not in task.refused else None

    async def _is_refused(self, connection: Any, task: _Task, only: int) -> bool:
        """Try with the first so many events."""
        try:
            async with _undone(connection):
                await self._move(connection, task, only)
        except Exception as error:
            if not refused_data(error):
                raise
            return True
        return False


@asynccontextmanager
async def _undone(connection: Any) -> AsyncIterator[None]:
    """Open a transaction of which nothing stays."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


def _moved(entity: Stopped, taken: Taken, left: int) -> Moved:
    statuses = [closed.status for closed in taken.closed]
    culprit = taken.parked[min(taken.parked)] if taken.parked else None
    untried = left - len(taken.parked)
    return Moved(entity, statuses.count("applied"), statuses.count("discarded"), left, untried, culprit)
