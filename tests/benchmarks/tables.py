"""Figures as tables, for a terminal and for the page; cells are Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmarks.figures import Figures
from tests.benchmarks.growth import Growth
from tests.benchmarks.large import Large
from tests.benchmarks.latency import Latency
from tests.benchmarks.rebuild import Rebuild


@dataclass(frozen=True, slots=True)
class Table:
    """`place` names where on the page it stands."""

    place: str
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def of_figures(figures: Sequence[Figures]) -> Table:
    """One row per contender: medians, the worst and the best rate."""
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
    return Table("figures", "From topic to Postgres, one process each, fsync on", head, rows)


def of_latency(measured: Sequence[Latency]) -> Table:
    """One row per rate."""
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
    return Table("latency", "Sitelog: append acknowledged to row visible", head, rows)


def of_growth(measured: Sequence[Growth]) -> Table:
    """One row per number of sites; the ratio is to the first row."""
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
            f"{one.backlog_memory_peak_bytes / 1e6:.0f}",
        )
        for one in measured
    ]
    return Table("growth", "Sitelog: changes, after so many sites and events", head, rows)


def of_rebuild(measured: Sequence[Rebuild]) -> Table:
    """One row per number of processes."""
    head = ("processes", "events", "sites", "events/s", "CPU s/M", "MB")
    rows = [
        (
            f"{one.processes}",
            f"{one.events:,}",
            f"{one.sites:,}",
            f"**{one.events_per_second:,.0f}**",
            f"{one.cpu_seconds_per_million:.1f}",
            f"{one.memory_peak_bytes / 1e6:.0f}",
        )
        for one in measured
    ]
    return Table("rebuild", "Sitelog: the log folded again, to the switched tables", head, rows)


def of_large(measured: Sequence[Large]) -> Table:
    """One row for each kind of event."""
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
    return Table("large", "Sitelog: memory", head, rows)
