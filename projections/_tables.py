"""All read models' tables together: load what a batch may touch, write what it changed."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sitelog.projections._fold import Fold
from sitelog.projections._insert import Filled
from sitelog.projections._model_rows import Placed
from sitelog.projections._projection import Key, Projection
from sitelog.projections._registry import Plan
from sitelog.projections._table import Table
from sitelog.streams._event import Event

Folded = tuple[int, Fold]
"""A log partition, and the fold of its events."""


class Tables:
    """The tables of a plan's projections; `suffix` as in Table."""

    def __init__(self, plan: Plan, suffix: str = "") -> None:
        self.tables = {projection: Table(projection, suffix) for projection in plan.projections}

    async def load(self, connection: Any, needs: Iterable[tuple[Fold, Iterable[Event]]]) -> None:
        """Load every row that events may touch and their fold doesn't have, with one query per read model."""
        missing = [(fold, fold.missing(events)) for fold, events in needs]
        for projection in self.tables:
            wanted = [(fold, keys[projection]) for fold, keys in missing if projection in keys]
            together = set().union(*(keys for _, keys in wanted))
            if len(together) < sum(len(keys) for _, keys in wanted):
                # A row belongs to one log partition. Where producers have mixed them up each fold has a row of its own,
                # and the write fails that would have to choose.
                for fold, keys in wanted:
                    _known(fold, projection).update(await self._load(connection, projection, keys))
            elif together:
                found = await self._load(connection, projection, together)
                for fold, keys in wanted:
                    own = found if len(wanted) == 1 else {key: found[key] for key in keys if key in found}
                    _known(fold, projection).update(own)

    async def _load(self, connection: Any, projection: Projection[Any], keys: set[Key]) -> dict[Key, Any]:
        table = self.tables[projection]
        return await (table.load_ranges if projection.per_entity else table.load)(connection, keys)

    async def fill(self, connection: Any, folded: Sequence[Folded]) -> None:
        """Write every row of the folds into tables that have none of them yet."""
        for projection, table in self.tables.items():
            await table.fill(connection, _rows(projection, folded))

    def filled(self, folded: Sequence[Folded]) -> list[Filled] | None:
        """Return every row that the folds have changed as inserts, None where there is more to do than that."""
        if any(
            ranges.removed for _, fold in folded for entities in fold.ranges.values() for ranges in entities.values()
        ):
            return None
        return [table.filled(_rows(projection, folded)) for projection, table in self.tables.items()]

    async def write(self, connection: Any, folded: Sequence[Folded]) -> None:
        """Write every row that the folds have changed, with one statement per read model."""
        for projection, table in self.tables.items():
            if projection.per_entity:
                ranges = (ranges for _, fold in folded for ranges in fold.ranges[projection].values())
                await table.remove(connection, {key for one in ranges for key in one.removed})
            await table.write(connection, _rows(projection, folded))


def _known(fold: Fold, projection: Projection[Any]) -> dict[Key, Any]:
    return fold.ranges[projection] if projection.per_entity else fold.rows[projection]


def _rows(projection: Projection[Any], folded: Sequence[Folded]) -> Iterator[Placed]:
    for log_partition, fold in folded:
        if projection.per_entity:
            for ranges in fold.ranges[projection].values():
                for key, stored in ranges.rows.items():
                    yield key, log_partition, stored
        else:
            for key, stored in fold.rows[projection].items():
                yield key, log_partition, stored
