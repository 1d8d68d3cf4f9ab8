"""A read model's table: its DDL, and the queries that load and write rows by the hundred."""

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from operator import itemgetter
from typing import Any, Final

from sitelog.projections._copy import PACKED_AT_ONCE, copy
from sitelog.projections._fold import Ranges
from sitelog.projections._in_place import InPlace, is_newer, keeping_owner
from sitelog.projections._insert import Filled, Insert, columns_of
from sitelog.projections._model_rows import ModelPacker, Placed
from sitelog.projections._packed import RowFormat
from sitelog.projections._pieces import pieces
from sitelog.projections._projection import BOOKKEEPING, CHANGED, OWNER, Key, Projection
from sitelog.projections._stored import Stored

# Every name in this SQL is a literal of a read model's file, checked to be an identifier; values are parameters.
# ruff: noqa: S608

BULK_ROWS: Final = 200
"""From so many rows on, COPY into a temporary table and one INSERT … SELECT cost half of one array per column."""

BYTEWISE: Final = ' COLLATE "C"'
"""What an index holds is an id, not a word: _schema.sql says why that matters."""


class Table:
    """The table of one projection; `suffix` names a second one that a replay builds beside it."""

    def __init__(self, projection: Projection[Any], suffix: str = "") -> None:
        self.projection = projection
        self.name = projection.table + suffix
        self._types = (
            *(kind for kind, _ in projection.columns.values()),
            *(kind.removesuffix(" NOT NULL") for kind in BOOKKEEPING.values()),
        )
        self._form = row_format(projection)
        self._packer = ModelPacker(self._form, len(self._written))
        self._in_place = InPlace(projection, self.name, self._form)

    @cached_property
    def create_sql(self) -> str:
        """DDL of the table and its primary key."""
        indexed = set(self.projection.key).union(*self.projection.indexes)
        lines = [
            f"    {column} {kind}{BYTEWISE if kind == 'text' and column in indexed else ''}"
            f"{'' if nullable else ' NOT NULL'}"
            for column, (kind, nullable) in self.projection.columns.items()
        ]
        lines += [f"    {column} {kind}" for column, kind in BOOKKEEPING.items()]
        lines.append(f"    PRIMARY KEY ({', '.join(self.projection.key)})")
        # Rows are changed often: room on the page keeps their new versions beside the old ones.
        body = ",\n".join(lines)
        return f"CREATE TABLE public.{self.name} (\n{body}\n) WITH (fillfactor = 80)"

    @cached_property
    def index_sqls(self) -> list[str]:
        """DDL of each other index."""
        *own, (changed, _) = zip(self.index_names, self.projection.indexes, strict=True)
        return [
            *(f"CREATE INDEX {name} ON public.{self.name} ({', '.join(columns)})" for name, columns in own),
            # It changes with every row: in a B-tree, each update of a row would write to all indexes of its table.
            f"CREATE INDEX {changed} ON public.{self.name} USING brin ({CHANGED}) WITH (pages_per_range = 4)",
        ]

    @cached_property
    def index_names(self) -> list[str]:
        """Return the names of the other indexes."""
        return [f"{self.name}_{'_'.join(columns)}_idx" for columns in self.projection.indexes]

    @cached_property
    def view_sql(self) -> str:
        """DDL of the view under the read model's own name."""
        columns = ", ".join(self.shown)
        return f"CREATE OR REPLACE VIEW public.{self.projection.name} AS SELECT {columns} FROM public.{self.name}"

    @cached_property
    def shown(self) -> list[str]:
        """Return the columns of the view: all without what only the store needs."""
        return [*self.projection.columns, *(column for column in BOOKKEEPING if column != "field_versions")]

    @cached_property
    def load_sql(self) -> str:
        """Query for the rows of given keys, or in a History of given entities; one array per key column."""
        wanted = self._wanted
        key = ", ".join(f"t.{column}" for column in self.projection.key)
        record = ", ".join(f"t.{column}" for column in self.projection.columns)
        columns = f"{key}, record_send(ROW({record})), t.version, t.field_versions, tidsend(t.ctid), t.{OWNER}"
        if len(wanted) == 1:
            return f"SELECT {columns} FROM public.{self.name} AS t WHERE t.{wanted[0]} = ANY($1)"
        arrays = ", ".join(f"${n}::{self._array(column)}" for n, column in enumerate(wanted, 1))
        names = ", ".join(wanted)
        return f"SELECT {columns} FROM public.{self.name} AS t JOIN unnest({arrays}) AS w({names}) USING ({names})"

    @cached_property
    def upsert(self) -> Insert:
        """Statement that writes few rows, one array per column; a row never goes back in its log, nor to another."""
        return Insert(f"public.{self.name} AS t", self._written, self._types, self._on_conflict)

    @cached_property
    def stage_sql(self) -> str:
        """DDL of the temporary table that many rows go through; it is there for the session, empty at each commit."""
        return f"CREATE TEMPORARY TABLE IF NOT EXISTS {self._stage} (LIKE public.{self.name}) ON COMMIT DELETE ROWS"

    @cached_property
    def merge_sql(self) -> str:
        """Statement that writes the rows of the temporary table; a row never goes back in its log."""
        return self.upsert.of(f"SELECT {', '.join(self._written)} FROM pg_temp.{self._stage}")

    @cached_property
    def delete_sql(self) -> str:
        """Statement that removes rows, one array per key column."""
        arrays = ", ".join(f"${n}::{self._array(column)}" for n, column in enumerate(self.projection.key, 1))
        names = ", ".join(self.projection.key)
        same = " AND ".join(f"t.{column} = w.{column}" for column in self.projection.key)
        return f"DELETE FROM public.{self.name} AS t USING unnest({arrays}) AS w({names}) WHERE {same}"

    @property
    def _stage(self) -> str:
        return f"stage_{self.name}"

    @property
    def _written(self) -> tuple[str, ...]:
        return (*self.projection.columns, *BOOKKEEPING)

    @property
    def _on_conflict(self) -> str:
        kept = (*self.projection.key, OWNER)
        updates = ", ".join(f"{column} = excluded.{column}" for column in self._written if column not in kept)
        return (
            f"ON CONFLICT ({', '.join(self.projection.key)}) DO UPDATE SET {updates}, {keeping_owner('excluded')} "
            f"WHERE {is_newer('excluded')}"
        )

    @property
    def _wanted(self) -> tuple[str, ...]:
        return self.projection.key[:1] if self.projection.per_entity else self.projection.key

    def _array(self, column: str) -> str:
        return f"{self.projection.columns[column][0]}[]"

    async def load(self, connection: Any, keys: Collection[Key]) -> dict[Key, Stored]:
        """Return the rows that there are of the keys, by their own key."""
        if not keys:
            return {}
        rows = await connection.fetch(self.load_sql, *(list(column) for column in zip(*keys, strict=True)))
        form, width = self._form, len(self.projection.key)
        return {row[:width]: Stored.loaded(form, *row[width:]) for row in rows}

    async def load_ranges(self, connection: Any, entities: Collection[Key]) -> dict[Key, Ranges]:
        """Return all rows of the entities, in key order, by entity."""
        stored = await self.load(connection, entities)
        ranges: dict[Key, Ranges] = {}
        for key in sorted(stored):
            ranges.setdefault(key[:1], Ranges({}, set())).rows[key] = stored[key]
        return ranges

    async def write(self, connection: Any, rows: Iterable[Placed]) -> None:
        """Write the rows that events have changed."""
        changed = _changed(rows)
        placed = [row for row in changed if row[2].ctid is not None]
        if len(placed) >= BULK_ROWS and await self._in_place.write(connection, placed):
            changed = [row for row in changed if row[2].ctid is None]
        if len(changed) >= BULK_ROWS:
            await connection.execute(self.stage_sql)
            await self._copy(connection, "pg_temp", self._stage, _in_key_order(changed))
            await connection.execute(self.merge_sql)
        elif changed:
            await connection.execute(self.upsert.sql, *_columns(_in_key_order(changed)))

    def filled(self, rows: Iterable[Placed]) -> Filled:
        """Return the rows that events have changed as an insert, for few of them."""
        return self.upsert, _columns(_in_key_order(_changed(rows)))

    async def fill(self, connection: Any, rows: Iterable[Placed]) -> None:
        """Write rows that the table doesn't have yet, all of them."""
        await self._copy(connection, "public", self.name, list(rows))

    async def _copy(self, connection: Any, schema: str, table: str, rows: Sequence[Placed]) -> None:
        packed = map(self._packer.packed, pieces(rows, PACKED_AT_ONCE))
        await copy(connection, schema, table, self._written, packed)

    async def remove(self, connection: Any, keys: Collection[Key]) -> None:
        """Remove rows by key."""
        if keys:
            await connection.execute(self.delete_sql, *(list(column) for column in zip(*sorted(keys), strict=True)))


def _changed(rows: Iterable[Placed]) -> list[Placed]:
    """Return the rows to be written."""
    return [row for row in rows if row[2].at is not None]


def _in_key_order(rows: Iterable[Placed]) -> list[Placed]:
    """Return the rows in an order in which nobody deadlocks."""
    return sorted(rows, key=itemgetter(0))


def row_format(projection: Projection[Any]) -> RowFormat:
    """Return how a read model's rows are packed."""
    return RowFormat({column: kind for column, (kind, _) in projection.columns.items()})


def _columns(rows: Sequence[Placed]) -> list[list[Any]]:
    return columns_of([_values(row) for row in rows])


def _values(row: Placed) -> tuple[Any, ...]:
    _, log_partition, stored = row
    at = stored.at
    assert at is not None  # noqa: S101 - the row of an event
    return (*stored.values, stored.version, stored.versions_json(), at.append_time, log_partition, at.log_seq)
