"""Puts figures into docs/benchmarks.md, between the comments that mark their place."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.chart import bars
from tests.benchmarks.contenders import SITELOG
from tests.benchmarks.figures import Figures
from tests.benchmarks.tables import Table

PAGE: Final = Path(__file__).parents[2] / "docs" / "benchmarks.md"
CHART: Final = PAGE.with_suffix(".svg")
_RIGHT: Final = "---:"


def put(table: Table, machine: Mapping[str, Any], command: str) -> None:
    """Replace what is in the table's place by it, and by what it was measured with."""
    ruler = ("---", *[_RIGHT] * (len(table.head) - 1))
    lines = ["| " + " | ".join(row) + " |" for row in (table.head, ruler, *table.rows)]
    _replace(table.place, [*lines, "", _circumstances(machine, command)])


def put_chart(figures: Sequence[Figures]) -> None:
    """Replace the chart of the first table."""
    CHART.write_text(
        bars("events/s", [(one.contender, one.events_per_second) for one in figures], SITELOG.name), encoding="utf-8"
    )


def _circumstances(machine: Mapping[str, Any], command: str) -> str:
    known = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in machine.items())
    return f"`{command}` on {datetime.now(UTC):%Y-%m-%d}: {known}."


def _replace(place: str, lines: Sequence[str]) -> None:
    """Put the lines between the comments of this place. Raises ValueError where the page has no such place."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = f"<!-- {place}: written by `make bench` -->", f"<!-- end of {place} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{PAGE}: expected {begin} and {end}")
    body = "\n".join([begin, "", *lines, "", end])
    PAGE.write_text(pattern.sub(lambda _: body, text), encoding="utf-8")
