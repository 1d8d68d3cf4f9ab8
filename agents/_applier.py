"""Applies slices of partitions: the same again until it works, and by halves where it is too much at once."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from time import monotonic
from typing import Any, Final

import asyncpg

from sitelog.agents._metrics import Metrics
from sitelog.agents._patience import Patience
from sitelog.agents._progress import Progress
from sitelog.agents._spans import Spans
from sitelog.projections._aside import TooMuchAside, Trial
from sitelog.projections._database import refused_data, transient, why_refused
from sitelog.projections._log import seen_before
from sitelog.projections._slice import Outcome, Slice
from sitelog.projections._transaction import Projector
from sitelog.streams._batch import Claim, Place
from sitelog.streams.errors import Halt, reason_of

log = logging.getLogger("sitelog.pipeline")

ACQUIRE_SECONDS_MAX: Final = 5.0

REPETITIONS_MAX: Final = 10
"""How often a batch may turn out to hold what is written already, although it was looked for."""

OVERLONG_TRIES: Final = 2
"""Tries that take longer than they may before there is less in one: the first may have met an outage."""

WARY_BATCHES: Final = 50
"""Batches that are checked for events sent twice, after one was found: repetitions come in runs."""

NOTHING: Final = Outcome("applied")


class Applier:
    """Puts slices into Postgres.

    `held_seconds_max` is the shortest time after which Postgres ends a transaction.
    """

    def __init__(
        self,
        projector: Projector,
        *,
        pool: Callable[[], asyncpg.Pool],
        metrics: Metrics,
        progress: Progress,
        spans: Spans,
        held_seconds_max: float,
    ) -> None:
        self._projector = projector
        self._pool = pool
        self._metrics = metrics
        self._progress = progress
        self._spans = spans
        self._held_seconds_max = held_seconds_max
        self._wary: dict[Place, int] = {}

    async def together(self, parts: Sequence[Slice]) -> list[Outcome] | None:
        """Try once to apply slices in one transaction; None where each needs one of its own."""
        check_known = any(map(self._is_wary_of, parts))
        try:
            async with self._connection(parts) as connection:
                outcomes = await self._projector.apply(connection, parts, check_known=check_known)
        except Exception as error:  # noqa: BLE001 - which of them it is about shows when each is tried alone
            log.info("%d batches can't share a transaction: %s", len(parts), type(error).__name__)
            return None
        return [self._committed(part, NOTHING, outcome) for part, outcome in zip(parts, outcomes, strict=True)]

    async def alone(self, claim: Claim, part: Slice) -> Outcome | None:
        """Apply a slice, again and again while the database is away; None once the claim is over.

        Raises Halt, SchemasAway where what was put aside can't be read without the schema registry, and whatever else
        no further try mends.
        """
        patience = Patience(self._metrics, self._spans)
        check_known = self._is_wary_of(part)
        done, trial, repetitions, overlong = NOTHING, None, 0, 0
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
                elif isinstance(error, TooMuchAside) or (refused_data(error) and len(part.items) > 1):
                    return await self._divide(claim, part)
                elif transient(error):
                    self._progress.failing(part.topic, part.partition, f"Postgres: {reason_of(error)}")
                    await patience.wait("database")
                    overlong = overlong + 1 if self._is_overlong(error, began) else 0
                    if overlong >= OVERLONG_TRIES and len(part.items) > 1:
                        return await self._divide(claim, part)
                elif refused_data(error):
                    trial = self._tried(trial, part, error)
                else:
                    raise
            else:
                done, repetitions = self._committed(part, done, outcome), 0
                if not outcome.unfinished:
                    return done
                self._progress.moving(part.topic, part.partition)
                patience.renew()
                trial = trial and Trial(trial.records * 2)
        self._progress.goes_on(part.topic, part.partition)
        return None

    def _committed(self, part: Slice, before: Outcome, outcome: Outcome) -> Outcome:
        """Count what a transaction has done, and return it with what those before it have."""
        if before is not NOTHING and not outcome.unfinished:
            # A record that took several transactions has met itself in the log, which is no repetition.
            outcome = replace(outcome, duplicates=0)
        self._metrics.committed(part.topic, outcome)
        return before.followed_by(outcome)

    async def _divide(self, claim: Claim, part: Slice) -> Outcome | None:
        """Apply it by halves, until there is little enough, or the record is alone that makes the trouble."""
        middle = len(part.items) // 2
        at = part.items[middle].offset
        first = await self.alone(claim, replace(part, end=at, items=part.items[:middle]))
        if first is None or first.verdict not in ("applied", "applied_before"):
            return first
        self._progress.moving(part.topic, part.partition)
        second = await self.alone(claim, replace(part, start=at, items=part.items[middle:]))
        return None if second is None else first.followed_by(second)

    def _is_overlong(self, error: BaseException, began: float | None) -> bool:
        """Tell whether a transaction may have been ended for its length: as long again, it would be so for ever."""
        # Whom Postgres has ended may learn only that the connection is gone. Waiting for a lock is another matter.
        if began is None or isinstance(error, asyncpg.LockNotAvailableError):
            return False
        return monotonic() - began >= self._held_seconds_max

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

    def settled(self, part: Slice) -> None:
        """Take note that a batch is done."""
        self._wary[part.place] = max(0, self._wary.get(part.place, 0) - 1)

    def _is_wary_of(self, part: Slice) -> bool:
        return self._wary.get(part.place, 0) > 0

    def _connection(self, parts: Sequence[Slice]) -> AbstractAsyncContextManager[Any]:
        """Take a connection, for one transaction with these."""
        return self._spans.transaction(self._pool().acquire(timeout=ACQUIRE_SECONDS_MAX), parts)
