"""Rows made of events, for tests of single read models: what `Fold` makes of them, and when it waits."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from sitelog.projections._fold import Fold
from sitelog.projections._merge import Conflict, Policy
from sitelog.projections._registry import Plan
from sitelog.projections._stored import At
from sitelog.streams._event import Event
from tests.read_models import OURS

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)


def day(number: int) -> datetime:
    """Midnight of this day of January 2026."""
    return JANUARY + timedelta(days=number - 1)


class Folded:
    """What events come to, one after the other, appended a second apart."""

    def __init__(self, events: Iterable[Event] = (), policy: Policy = "last_write_wins", planned: Plan = OURS) -> None:
        self.fold = Fold(planned, policy)
        self.conflicts: list[Conflict] = []
        self._projections = {projection.name: projection for projection in planned.projections}
        self._log_seq = 0
        for event in events:
            self.take(event)

    def take(self, event: Event) -> None:
        self._log_seq += 1
        self.conflicts += self.fold.apply(event, At(self._log_seq, day(1) + timedelta(seconds=self._log_seq)))

    def rows(self, name: str) -> list[Any]:
        """The rows of a read model, in key order."""
        make = self._projections[name].make
        return [make(stored.values) for _, stored in sorted(self._stored(name).items())]

    def row(self, name: str) -> Any:
        (row,) = self.rows(name)
        return row

    def version(self, name: str) -> int:
        (stored,) = self._stored(name).values()
        version: int = stored.version
        return version

    def _stored(self, name: str) -> dict[Any, Any]:
        projection = self._projections[name]
        if not projection.per_entity:
            return self.fold.rows[projection]
        return {key: stored for ranges in self.fold.ranges[projection].values() for key, stored in ranges.rows.items()}
