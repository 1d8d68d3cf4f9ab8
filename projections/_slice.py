"""What a transaction is given of a partition, and what becomes of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, Self

from sitelog.projections._items import Item
from sitelog.projections._positions import Locked
from sitelog.streams._batch import Place

Verdict = Literal["applied", "applied_before", "fenced", "lost"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch.

    `applied_before`: an earlier try had committed although its connection broke. `fenced`: somebody else has
    claimed the partition since. `lost`: a batch before this one never arrived. In these three nothing was
    written, and the counts are 0.

    `unfinished`: of an entity so many events were put aside that the batch, of one record then, has to be applied
    again; its record's place is taken when all of them are.
    """

    verdict: Verdict
    events: int = 0
    duplicates: int = 0
    parked: int = 0
    waiting: int = 0
    conflicts: int = 0
    unfinished: bool = False
    last_event_time: datetime | None = None

    def followed_by(self, later: Self) -> Self:
        """Return what became of this and of what came after it, as one: the later one decides."""
        return replace(
            later,
            events=self.events + later.events,
            duplicates=self.duplicates + later.duplicates,
            parked=self.parked + later.parked,
            waiting=self.waiting + later.waiting,
            conflicts=self.conflicts + later.conflicts,
            last_event_time=later.last_event_time or self.last_event_time,
        )


@dataclass(frozen=True, slots=True)
class Slice:
    """Items `[start, end)` of one partition, to be applied under the claim of `epoch`."""

    topic: str
    partition: int
    epoch: int
    start: int
    end: int
    items: Sequence[Item]

    @property
    def place(self) -> Place:
        """The partition."""
        return self.topic, self.partition


def judge(position: Locked | None, part: Slice) -> Verdict:
    """Compare a slice with the locked position: only the right epoch at the right offset may write."""
    if position is None or position.epoch != part.epoch:
        return "fenced"
    if position.next_offset == part.start:
        return "applied"
    return "applied_before" if position.next_offset == part.end else "lost"
