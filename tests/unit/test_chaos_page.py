"""The page on reliability names every fault, and takes the tables that `make chaos` writes."""

import re
from dataclasses import replace

import pytest

from tests.chaos.checker import KINDS as VIOLATIONS
from tests.chaos.kinds import KINDS
from tests.chaos.outcome import Outcome
from tests.chaos.page import PAGE, replaced, run_lines
from tests.chaos.schedule import Crew, Schedule

TEXT = PAGE.read_text(encoding="utf-8")


def test_every_fault_and_every_violation_is_explained() -> None:
    assert set(re.findall(r"`(\w+)`", TEXT)) >= KINDS.keys() | set(VIOLATIONS)


@pytest.mark.parametrize("place", ["runs", "recovery"])
def test_tables_have_a_place_and_can_be_replaced_again(place: str) -> None:
    once = replaced(TEXT, place, ["| one |"])
    assert "| one |" in once
    assert replaced(once, place, ["| two |"]) == replaced(TEXT, place, ["| two |"])


def test_runs_that_broke_off_or_never_began_are_counted() -> None:
    schedule = Schedule(seed=7, seconds=60, crew=Crew(1, (False,), (20,)), faults=())
    right = Outcome(schedule, level_seconds=0.5)
    broken_off = Outcome(replace(schedule, seed=8), error="TimeoutError")
    *_, first, second, _, sentence = run_lines([right, broken_off], 30)
    assert first.endswith("| **right** |")
    assert second.startswith("| 8 |")
    assert second.endswith("| **broken off: TimeoutError** |")
    assert sentence == "1 of 30 runs right."


def test_a_page_without_the_place_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected <!-- elsewhere"):
        replaced(TEXT, "elsewhere", [])
