"""Rows for one table, one array per column: what a few of them go through."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

# Every name in this SQL is a literal, or a read model's and checked to be an identifier; values are parameters.
# ruff: noqa: S608


@dataclass(frozen=True)
class Insert:
    """`INSERT INTO table (columns)`, each column with its type, and what comes after the rows."""

    table: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    on_conflict: str = ""

    @cached_property
    def sql(self) -> str:
        """The statement by itself, its parameters are the columns."""
        return self.from_arrays(1)

    def from_arrays(self, first: int, condition: str = "") -> str:
        """Return the statement whose columns are the parameters from this number on; `condition` begins with WHERE."""
        arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(self.types, first))
        return self.of(f"SELECT r.* FROM unnest({arrays}) AS r {condition}")

    def of(self, query: str) -> str:
        """Return the statement that takes its rows from this query."""
        return f"INSERT INTO {self.table} ({', '.join(self.columns)}) {query} {self.on_conflict}"


Filled = tuple[Insert, Sequence[Sequence[Any]]]
"""An insert, and its columns."""


def columns_of(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Return the columns of rows."""
    return [list(column) for column in zip(*rows, strict=True)]
