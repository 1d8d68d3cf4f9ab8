"""Shows figures to people, and writes them down for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import rich.table
from rich.console import Console

from tests.benchmarks.figures import Figures
from tests.benchmarks.growth import Growth
from tests.benchmarks.large import Large
from tests.benchmarks.latency import Latency
from tests.benchmarks.race import Run
from tests.benchmarks.rebuild import Rebuild
from tests.benchmarks.tables import Table


def show_machine(console: Console, machine: Mapping[str, Any]) -> None:
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()), style="dim")


def show(console: Console, found: Table) -> None:
    """Print a table; its first column is as wide as it needs."""
    first, *others = found.head
    table = rich.table.Table(title=found.title)
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right", overflow="fold")
    for row in found.rows:
        table.add_row(*(cell.strip("*`") for cell in row))
    console.print(table)


def show_contenders(console: Console, figures: Sequence[Figures]) -> None:
    for one in figures:
        console.print(f"{one.contender}: {one.title}; writes {one.writes}", style="dim", markup=False)


def write_json(
    path: Path,
    machine: Mapping[str, Any],
    *,
    asked: Mapping[str, Any],
    figures: Sequence[Figures] = (),
    runs: Sequence[Run] = (),
    latency: Sequence[Latency] = (),
    growth: Sequence[Growth] = (),
    rebuild: Sequence[Rebuild] = (),
    large: Sequence[Large] = (),
) -> None:
    """Write everything, each single run too."""
    found = {
        "asked": asked,
        "machine": machine,
        "figures": [asdict(one) for one in figures],
        "runs": [asdict(run) for run in runs],
        "latency": [asdict(one) for one in latency],
        "growth": [asdict(one) for one in growth],
        "rebuild": [asdict(one) for one in rebuild],
        "large": [asdict(one) for one in large],
    }
    path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
