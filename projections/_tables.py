"""All read models' tables together: load what a batch may touch, write what it changed."""

from collections.abc import Iterable
from typing import Any

from sitelog.projections._fold import Fold
from sitelog.projections._registry import Plan
from sitelog.projections._table import Table
from sitelog.streams._event import Event


class Tables:
    """The tables of a plan's projections; `suffix` as in Table."""

    def __init__(self, plan: Plan, suffix: str = "") -> None:
        self.tables = {projection: Table(projection, suffix) for projection in plan.projections}

    async def load(self, connection: Any, fold: Fold, events: Iterable[Event]) -> None:
        """Load every row that the events may touch and the fold doesn't have, with one query per read model."""
        for projection, keys in fold.missing(events).items():
            table = self.tables[projection]
            if projection.per_entity:
                fold.ranges[projection].update(await table.load_ranges(connection, keys))
            else:
                fold.rows[projection].update(await table.load(connection, keys))

    async def fill(self, connection: Any, fold: Fold, log_partition: int) -> None:
        """Write every row of the fold into tables that have none of them yet."""
        for projection, rows in fold.rows.items():
            await self.tables[projection].fill(connection, log_partition, rows.values())
        for projection, entities in fold.ranges.items():
            rows_of_all = (stored for ranges in entities.values() for stored in ranges.rows.values())
            await self.tables[projection].fill(connection, log_partition, rows_of_all)

    async def write(self, connection: Any, fold: Fold, log_partition: int) -> None:
        """Write every row that the fold has changed, with one statement per read model."""
        for projection, rows in fold.rows.items():
            await self.tables[projection].write(connection, log_partition, rows.values())
        for projection, entities in fold.ranges.items():
            table = self.tables[projection]
            await table.remove(connection, {key for ranges in entities.values() for key in ranges.removed})
            stored = (stored for ranges in entities.values() for stored in ranges.rows.values())
            await table.write(connection, log_partition, stored)
