"""Rows for one table, one array per column: what a few of them go through."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Every name in this SQL is a literal, or a read model's and checked to be an identifier; values are parameters.
# ruff: noqa: S608


@dataclass(frozen=True, slots=True)
class Insert:
    """`INSERT INTO table (columns)`, each column with its type, and what comes after the rows."""

    table: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    on_conflict: str = ""

    @property
    def sql(self) -> str:
        """The statement by itself."""
        return self.sql_from(1)

    def sql_from(self, first: int, condition: str = "") -> str:
        """Return the statement whose parameters begin with this number, `condition` follows the rows' source."""
        arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(self.types, first))
        rows = f"SELECT r.* FROM unnest({arrays}) AS r {condition}".rstrip()
        return f"INSERT INTO {self.table} ({', '.join(self.columns)}) {rows} {self.on_conflict}".rstrip()


Filled = tuple[Insert, Sequence[Sequence[Any]]]
"""An insert, and its columns."""


def columns_of(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Return the columns of rows."""
    return [list(column) for column in zip(*rows, strict=True)]
