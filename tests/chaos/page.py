"""Puts outcomes into docs/reliability.md, between the comments that mark their places."""

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks.machine import _cpu
from tests.chaos.outcome import Outcome
from tests.chaos.report import recovered, tally, verdict

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def put(outcomes: Sequence[Outcome], runs: int, command: str, commit: str, *, only_recovery: bool = False) -> None:
    """Replace the table of the runs, unless told not to, and that of the recovery times, if any fault struck alone.

    `runs` is how many there were to be, `commit` the one that was current when they began.
    """
    text = PAGE.read_text(encoding="utf-8")
    trailer = ["", _circumstances(command, commit)]
    if not only_recovery:
        text = replaced(text, "runs", [*run_lines(outcomes, runs), *trailer])
    if recovered(outcomes):
        text = replaced(text, "recovery", [*_recoveries(outcomes), *trailer])
    PAGE.write_text(text, encoding="utf-8")


def replaced(text: str, place: str, lines: Sequence[str]) -> str:
    """Return the text with these lines between the comments of this place. Raises ValueError where there is none."""
    begin, end = f"<!-- {place}: written by `make chaos` -->", f"<!-- end of {place} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{PAGE}: expected {begin} and {end}")
    body = "\n".join([begin, "", *lines, "", end])
    return pattern.sub(lambda _: body, text)


def run_lines(outcomes: Sequence[Outcome], runs: int) -> list[str]:
    """Return a row for each outcome, and how many of all runs were right."""
    rows = [
        (
            str(outcome.schedule.seed),
            f"{outcome.schedule.seconds:g}",
            str(len(outcome.schedule.faults)),
            str(len(outcome.kinds)),
            f"{outcome.events:,}",
            f"{outcome.acknowledged:,}",
            "" if outcome.level_seconds is None else f"{outcome.level_seconds:.1f}",
            tally(outcome.ended),
            f"**{verdict(outcome)}**",
        )
        for outcome in outcomes
    ]
    head = ("seed", "s", "faults", "kinds", "events", "acknowledged", "level after s", "exit codes", "outcome")
    right = sum(outcome.is_right for outcome in outcomes)
    return [*_table(head, rows), "", f"{right} of {runs} runs right."]


def _circumstances(command: str, commit: str) -> str:
    """Say when and on what: above the number of cores the load is somebody else's, too, and times are too long."""
    load, _, _ = os.getloadavg()
    return (
        f"`{command}` on {datetime.now(UTC):%Y-%m-%d}, commit {commit}, {_cpu()}, {os.cpu_count()} cores, "
        f"load at the end {load:.1f}."
    )


def _recoveries(outcomes: Sequence[Outcome]) -> list[str]:
    rows = [
        (
            f"`{one.name}`",
            str(one.times),
            str(one.alone),
            f"{one.longest_median:.1f}",
            f"{one.longest_max:.1f}",
            f"{one.after_end_median:.1f}",
            f"{one.after_end_max:.1f}",
        )
        for one in recovered(outcomes)
    ]
    return _table(("fault", "times", "alone", "stood still", "worst", "after its end", "worst"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    ruler = ("---", *["---:"] * (len(head) - 1))
    return ["| " + " | ".join(row) + " |" for row in (head, ruler, *rows)]
