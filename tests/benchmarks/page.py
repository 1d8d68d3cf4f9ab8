"""Puts figures into docs/benchmarks.md, between the comments that mark their place."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.chart import bars
from tests.benchmarks.contenders import SITELOG
from tests.benchmarks.figures import Figures
from tests.benchmarks.growth import Growth
from tests.benchmarks.large import Large
from tests.benchmarks.latency import Latency

PAGE: Final = Path(__file__).parents[2] / "docs" / "benchmarks.md"
CHART: Final = PAGE.with_suffix(".svg")
_RIGHT: Final = "---:"


def put_figures(figures: Sequence[Figures], machine: Mapping[str, Any], command: str) -> None:
    """Replace the first table of the page, and its chart."""
    head = ("", "events/s", "worst to best", "x faust", "x loop-same", "CPU s/M", "MB", "launch to first commit")
    rows = [
        (
            f"`{one.contender}`",
            f"**{one.events_per_second:,.0f}**",
            f"{one.events_per_second_min:,.0f} to {one.events_per_second_max:,.0f}",
            "" if one.times_faust is None else f"{one.times_faust:.1f}",
            "" if one.times_loop is None else f"{one.times_loop:.2f}",
            f"{one.cpu_seconds_per_million:.1f}",
            f"{one.memory_peak_mb:.0f}",
            f"{one.start_seconds:.1f} s",
        )
        for one in figures
    ]
    _put("figures", [head, *rows], machine, command)
    CHART.write_text(
        bars("events/s", [(one.contender, one.events_per_second) for one in figures], SITELOG.name), encoding="utf-8"
    )


def put_latency(measured: Sequence[Latency], machine: Mapping[str, Any], command: str) -> None:
    """Replace the second table of the page."""
    head = ("events/s", "events", "p50 ms", "p95 ms", "p99 ms", "max ms", "from call: p50 ms", "p99 ms")
    rows = [
        (
            f"{one.rate:,.0f}",
            f"{one.events:,}",
            f"**{one.p50_ms:.1f}**",
            f"{one.p95_ms:.1f}",
            f"**{one.p99_ms:.1f}**",
            f"{one.max_ms:.1f}",
            f"{one.whole_p50_ms:.1f}",
            f"{one.whole_p99_ms:.1f}",
        )
        for one in measured
    ]
    _put("latency", [head, *rows], machine, command)


def put_growth(measured: Sequence[Growth], machine: Mapping[str, Any], command: str) -> None:
    """Replace the third table of the page; the ratio is to its first row."""
    head = ("sites", "events in the log before", "events/s", "x first", "CPU s/M", "MB", "MB with that backlog")
    first = measured[0].changes.events_per_second
    rows = [
        (
            f"{one.sites:,}",
            f"{one.log_events:,}",
            f"**{one.changes.events_per_second:,.0f}**",
            f"{one.changes.events_per_second / first:.2f}",
            f"{one.changes.cpu_seconds_per_million:.1f}",
            f"{one.changes.memory_peak_bytes / 1e6:.0f}",
            f"{one.backlog.memory_peak_bytes / 1e6:.0f}",
        )
        for one in measured
    ]
    _put("growth", [head, *rows], machine, command)


def put_large(measured: Sequence[Large], machine: Mapping[str, Any], command: str) -> None:
    """Replace the fourth table of the page."""
    head = ("events of 1 MB", "backlog", "events/s", "MB")
    rows = [
        (
            "that compress well" if one.compressible else "that don't compress",
            f"{one.events:,}",
            f"{one.run.events_per_second:,.0f}",
            f"**{one.run.memory_peak_bytes / 1e6:.0f}**",
        )
        for one in measured
    ]
    _put("large", [head, *rows], machine, command)


def _put(place: str, table: Sequence[Sequence[str]], machine: Mapping[str, Any], command: str) -> None:
    """Replace what is in a place by a table, its first row being the head, and what it was measured with."""
    head, *rows = table
    ruler = ("---", *[_RIGHT] * (len(head) - 1))
    lines = ["| " + " | ".join(row) + " |" for row in (head, ruler, *rows)]
    _replace(place, [*lines, "", _circumstances(machine, command)])


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
