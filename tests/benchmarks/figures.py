"""From runs to figures: the median of each contender's, with the worst and the best, and how they compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from tests.benchmarks.contenders import CONTENDERS, LOOP_SAME, PLAIN_FAUST, Contender
from tests.benchmarks.race import Run


@dataclass(frozen=True)
class Figures:
    """One contender's. The two ratios are of medians, None where the other one has no run that counts."""

    contender: str
    title: str
    writes: str
    runs: int
    events_per_second: float
    events_per_second_min: float
    events_per_second_max: float
    cpu_seconds_per_million: float
    memory_peak_mb: float
    start_seconds: float
    times_faust: float | None
    times_loop: float | None


def summarize(runs: Sequence[Run]) -> list[Figures]:
    """Return the figures of everyone who has a run, in the order of CONTENDERS."""
    of = {contender: [run for run in runs if run.contender == contender.name] for contender in CONTENDERS}
    rates = {
        contender.name: median(run.events_per_second for run in theirs) for contender, theirs in of.items() if theirs
    }
    return [_figures(contender, theirs, rates) for contender, theirs in of.items() if theirs]


def _figures(contender: Contender, runs: Sequence[Run], rates: Mapping[str, float]) -> Figures:
    rate = rates[contender.name]

    def times(other: Contender) -> float | None:
        return rate / rates[other.name] if other.name in rates else None

    return Figures(
        contender=contender.name,
        title=contender.title,
        writes=contender.writes,
        runs=len(runs),
        events_per_second=rate,
        events_per_second_min=min(run.events_per_second for run in runs),
        events_per_second_max=max(run.events_per_second for run in runs),
        cpu_seconds_per_million=median(run.cpu_seconds_per_million for run in runs),
        memory_peak_mb=max(run.memory_peak_bytes for run in runs) / 1_000_000,
        start_seconds=median(run.start_seconds for run in runs),
        times_faust=times(PLAIN_FAUST),
        times_loop=times(LOOP_SAME),
    )
