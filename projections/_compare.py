"""Compares a table that was folded again with the one in use, row by row and in every column."""

from dataclasses import dataclass
from typing import Any, Final

import orjson

from sitelog.projections._projection import BOOKKEEPING, NEXT
from sitelog.projections._table import Table

# Every name in this SQL is a literal of a read model's file; values are parameters.
# ruff: noqa: S608

EXAMPLES_MAX: Final = 5
"""Rows shown of a table that differs: one is a start, thousands are no help."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How many rows of a read model differ, and the first of them: column -> (in use, folded again)."""

    read_model: str
    rows: int
    examples: tuple[dict[str, tuple[str | None, str | None]], ...]


def compare_sql(table: Table) -> str:
    """Query for the rows that are in one of the two tables only: how many keys, and the first ones' rows as JSON.

    Everything is compared as the text that it is shown as: 1.0 and 1.00 differ, as they do for a reader. Only
    field_versions is compared as JSON, because its order means nothing.
    """
    columns = [*table.projection.columns, *BOOKKEEPING]
    shown = ", ".join(f"{column}::{'jsonb::' if column == 'field_versions' else ''}text" for column in columns)
    key = ", ".join(table.projection.key)
    return f"""
    WITH live AS (SELECT {shown} FROM public.{table.name}),
    fresh AS (SELECT {shown} FROM public.{table.name}{NEXT}),
    lost AS (SELECT * FROM live EXCEPT SELECT * FROM fresh),
    gained AS (SELECT * FROM fresh EXCEPT SELECT * FROM live)
    SELECT count(*) OVER () AS rows, row_to_json(l)::text AS live, row_to_json(g)::text AS fresh
    FROM lost AS l
    FULL JOIN gained AS g USING ({key})
    ORDER BY {key}
    LIMIT $1
    """


async def compare(connection: Any, table: Table) -> Difference | None:
    """Return how the fresh table differs from the one in use, None where it doesn't."""
    rows = await connection.fetch(compare_sql(table), EXAMPLES_MAX)
    if not rows:
        return None
    key = table.projection.key
    return Difference(
        table.projection.name, rows[0]["rows"], tuple(_example(row["live"], row["fresh"], key) for row in rows)
    )


def _example(live: str | None, fresh: str | None, key: tuple[str, ...]) -> dict[str, tuple[str | None, str | None]]:
    """Return the columns that differ, the key's before them."""
    one, other = orjson.loads(live or "{}"), orjson.loads(fresh or "{}")
    columns = (one or other).keys()
    return {
        column: (one.get(column), other.get(column))
        for column in columns
        if column in key or one.get(column) != other.get(column)
    }
