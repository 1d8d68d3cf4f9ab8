"""Shows outcomes to people, and writes them down for programs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import orjson
from rich.console import Console
from rich.table import Table

from tests.chaos.checker import counts
from tests.chaos.kinds import KINDS
from tests.chaos.outcome import Outcome

SHOWN_MAX = 20


@dataclass(frozen=True)
class Recovered:
    """One fault's recoveries, in seconds, of the `alone` among all `times`: of several at once nobody knows whose."""

    name: str
    times: int
    alone: int
    longest_median: float
    longest_max: float
    after_end_median: float
    after_end_max: float


def recovered(outcomes: Sequence[Outcome]) -> list[Recovered]:
    """Sum up by name those that had the stage for themselves at least once."""
    found = []
    every = [one for outcome in outcomes for one in outcome.recoveries]
    for name in sorted({one.name for one in every if one.alone}, key=_place):
        own = [one for one in every if one.name == name]
        longest = [one.longest for one in own if one.alone]
        ends = [one.after_end for one in own if one.alone]
        figures = (median(longest), max(longest), median(ends), max(ends))
        found.append(Recovered(name, len(own), len(longest), *figures))
    return found


def _place(name: str) -> tuple[int, str]:
    return list(KINDS).index(name.partition(" ")[0]), name


def verdict(outcome: Outcome) -> str:
    """Return a run's outcome in a few words."""
    if outcome.error is not None:
        return f"broken off: {outcome.error}"
    broken = [f"{count} {kind}" for kind, count in counts(outcome.violations).items() if count]
    if outcome.level_seconds is None:
        broken.append("not everything applied in time")
    if outcome.wrong_codes:
        broken.append(f"exit codes {tally(outcome.wrong_codes)}")
    return ", ".join(broken) or "right"


def tally(seen: Sequence[int] | Sequence[str]) -> str:
    """Return exit codes, or kinds, with how often each was seen."""
    counted = sorted(Counter(seen).items())
    return ", ".join(f"{one} ({count} times)" if count > 1 else str(one) for one, count in counted) or "none"


def show_outcome(console: Console, outcome: Outcome) -> None:
    style = "green" if outcome.is_right else "red"
    level = "" if outcome.level_seconds is None else f"; level {outcome.level_seconds:.1f} s after the last healing"
    console.print(
        f"seed {outcome.schedule.seed}: {verdict(outcome)}: {outcome.events:,} events "
        f"({outcome.acknowledged:,} acknowledged, {outcome.repeats:,} sent again), "
        f"{len(outcome.schedule.faults)} faults{level}",
        style=style,
        markup=False,
    )
    console.print(
        f"workers ended by themselves: {tally(outcome.ended)}; after SIGTERM: {tally(outcome.stopped)}, "
        f"{outcome.stop_seconds_max:.1f} s at most; "
        + ", ".join(f"{count} {what}" for what, count in outcome.marks.items()),
    )
    if outcome.without_effect:
        console.print(f"met nothing: {tally([fault.kind for fault in outcome.without_effect])}", style="yellow")
    if outcome.left_out:
        console.print(f"left out, as only root can mount a small disk: {', '.join(outcome.left_out)}", style="yellow")
    for violation in outcome.violations[:SHOWN_MAX]:
        console.print(f"  {violation.kind}: {violation.what}", markup=False)
    if len(outcome.violations) > SHOWN_MAX:
        console.print(f"  and {len(outcome.violations) - SHOWN_MAX} more")


def show_recoveries(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Print a row for each fault that struck alone; nothing where none has."""
    if not recovered(outcomes):
        return
    table = Table(title="Seconds that the slowest partition stood still, where one fault struck alone")
    for heading in ("fault", "times", "alone", "stood\nstill", "worst", "after\nits end", "worst"):
        table.add_column(heading, justify="left" if heading == "fault" else "right")
    for one in recovered(outcomes):
        times = (one.longest_median, one.longest_max, one.after_end_median, one.after_end_max)
        table.add_row(one.name, str(one.times), str(one.alone), *(f"{seconds:.1f}" for seconds in times))
    console.print(table)


def write_json(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write everything, each fault and each recovery too."""
    found = {
        "runs": [
            asdict(outcome)
            | {
                "verdict": verdict(outcome),
                "kinds": sorted(outcome.kinds),
                "violation_counts": counts(outcome.violations),
            }
            for outcome in outcomes
        ],
        "recovery": [asdict(one) for one in recovered(outcomes)],
    }
    path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
