"""Shows figures to people, and writes them down for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from tests.benchmarks.figures import Figures
from tests.benchmarks.growth import Growth
from tests.benchmarks.large import Large
from tests.benchmarks.latency import Latency
from tests.benchmarks.race import Run


def show_machine(console: Console, machine: Mapping[str, Any]) -> None:
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()), style="dim")


def show_figures(console: Console, figures: Sequence[Figures]) -> None:
    """Print one row per contender: medians, the worst and the best rate, and what it writes."""
    table = Table(title="From topic to Postgres, one process each, fsync on")
    table.add_column("who", no_wrap=True)
    for heading in ("events\n/s", "min", "max", "x\nfaust", "x loop-\nsame", "CPU\ns/M", "MB", "start\ns"):
        table.add_column(heading, justify="right")
    for one in figures:
        table.add_row(
            one.contender,
            f"{one.events_per_second:,.0f}",
            f"{one.events_per_second_min:,.0f}",
            f"{one.events_per_second_max:,.0f}",
            _times(one.times_faust),
            _times(one.times_loop),
            f"{one.cpu_seconds_per_million:.1f}",
            f"{one.memory_peak_mb:.0f}",
            f"{one.start_seconds:.1f}",
        )
    console.print(table)
    for one in figures:
        console.print(f"{one.contender}: {one.title}; writes {one.writes}", style="dim", markup=False)


def show_latency(console: Console, measured: Sequence[Latency]) -> None:
    table = Table(title="Sitelog: append acknowledged to row visible, in milliseconds")
    for heading in ("events/s", "events", "p50", "p95", "p99", "max", "from call: p50", "p99"):
        table.add_column(heading, justify="right")
    for one in measured:
        visible = (one.p50_ms, one.p95_ms, one.p99_ms, one.max_ms, one.whole_p50_ms, one.whole_p99_ms)
        table.add_row(f"{one.rate:,.0f}", f"{one.events:,}", *(f"{value:.1f}" for value in visible))
    console.print(table)


def show_growth(console: Console, measured: Sequence[Growth]) -> None:
    table = Table(title="Sitelog: changes, after so many sites and events")
    for heading in ("sites", "log before", "events/s", "CPU s/M", "MB", "MB with that backlog"):
        table.add_column(heading, justify="right")
    for one in measured:
        changes = one.changes
        table.add_row(
            f"{one.sites:,}",
            f"{one.log_events:,}",
            f"{changes.events_per_second:,.0f}",
            f"{changes.cpu_seconds_per_million:.1f}",
            f"{changes.memory_peak_bytes / 1e6:.0f}",
            f"{one.backlog.memory_peak_bytes / 1e6:.0f}",
        )
    console.print(table)


def show_large(console: Console, measured: Sequence[Large]) -> None:
    for one in measured:
        kind = "compress well" if one.compressible else "don't compress"
        rate, memory = one.run.events_per_second, one.run.memory_peak_bytes / 1e6
        console.print(f"{one.events:,} events of 1 MB that {kind}: {rate:.0f} events/s, {memory:.0f} MB")


def write_json(
    path: Path,
    machine: Mapping[str, Any],
    *,
    asked: Mapping[str, Any],
    figures: Sequence[Figures] = (),
    runs: Sequence[Run] = (),
    latency: Sequence[Latency] = (),
    growth: Sequence[Growth] = (),
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
        "large": [asdict(one) for one in large],
    }
    path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.1f}"
