"""A run's outcome: what it counts, and what makes it right."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.chaos import run as running
from tests.chaos.__main__ import asked
from tests.chaos.kinds import KINDS
from tests.chaos.outcome import Outcome, named
from tests.chaos.report import tally, verdict
from tests.chaos.schedule import Crew, Fault, Schedule, plan


def fault(kind: str, at: float = 0.0, seconds: float = 1.0, target: int = 0) -> Fault:
    return Fault(kind, at, seconds, target, amount=0.5, alone=False)


def outcome(*faults: Fault) -> Outcome:
    """Return that of a run in which nothing went wrong."""
    crew = Crew(members=2, static=(False,) * 4, batches=(20,) * 4)
    return Outcome(Schedule(seed=1, seconds=60, crew=crew, faults=faults), level_seconds=0.1)


def test_a_kind_counts_where_one_of_its_faults_has_met_something() -> None:
    first, second, other = fault("postgres_cut"), fault("postgres_cut", 5), fault("disk_full", 9)
    run = outcome(first, second, other)
    assert run.kinds == {"postgres_cut", "disk_full"}
    run.without_effect += [first, other]
    assert run.kinds == {"postgres_cut"}
    run.without_effect.append(second)
    assert run.kinds == set()


def test_what_was_seen_more_than_once_is_counted() -> None:
    assert tally([69, 0, 69]) == "0, 69 (2 times)"
    assert tally(["postgres_cut"]) == "postgres_cut"
    assert tally([]) == "none"


def test_a_worker_may_end_where_something_is_away_and_after_sigterm() -> None:
    run = outcome()
    run.ended, run.stopped = [69, 69], [0, 143, -15]
    assert run.is_right
    assert verdict(run) == "right"


@pytest.mark.parametrize(
    ("ended", "stopped"), [([70], []), ([69, 76], []), ([-9], []), ([], [-9]), ([], [71]), ([0], [])]
)
def test_any_other_exit_code_is_wrong(ended: list[int], stopped: list[int]) -> None:
    run = outcome()
    run.ended, run.stopped = ended, stopped
    assert not run.is_right
    assert verdict(run) == f"exit codes {tally([code for code in (*ended, *stopped) if code != 69])}"


@pytest.mark.parametrize(
    ("other", "is_right"),
    [
        (fault("worker_terminated", 15, 1, target=1), True),
        (fault("worker_joins", 1, 18, target=2), True),
        (fault("worker_leaves", 25, 9, target=1), True),
        (fault("worker_leaves", 27, 9, target=1), False),
        (fault("worker_leaves", 1, 18, target=1), False),
    ],
)
def test_a_worker_may_be_busy_till_the_end_where_the_group_waits_for_a_frozen_one(
    other: Fault, *, is_right: bool
) -> None:
    run = outcome(fault("worker_frozen", 10, 10, target=0), other)
    run.stopped = [71]
    assert run.is_right is is_right


@pytest.mark.parametrize(
    ("silent", "is_right"),
    [
        (fault("postgres_silent", 10, 10, target=1), True),
        (fault("postgres_silent", 10, 10, target=0), False),
        (fault("postgres_silent", 16, 10, target=1), False),
    ],
)
def test_a_worker_may_be_busy_till_the_end_where_its_own_postgres_is_silent(silent: Fault, *, is_right: bool) -> None:
    run = outcome(silent, fault("worker_terminated", 15, 1, target=1))
    run.stopped = [71]
    assert run.is_right is is_right


def test_a_run_that_breaks_off_is_an_outcome_that_is_not_right(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        async with asyncio.TaskGroup():
            raise ValueError("no Java\nsecond line")
        yield

    monkeypatch.setattr(running, "open_cluster", broken)
    said: list[str] = []
    run = asyncio.run(running.run(7, 60, list(KINDS), per_second=1, say=said.append))
    assert not run.is_right
    assert verdict(run) == "broken off: ValueError: no Java"
    assert "Traceback" in said[0]
    assert run.schedule == plan(7, 60, list(KINDS))


def test_an_error_without_a_message_has_its_name() -> None:
    assert named(TimeoutError()) == "TimeoutError"


def test_what_cannot_be_done_is_left_out_and_all_else_stays() -> None:
    cut, full = fault("postgres_cut"), fault("disk_full", 9)
    run = outcome(cut, full)
    run.leave_out("disk_full")
    run.leave_out("kafka_cut")
    assert run.left_out == ("disk_full",)
    assert run.schedule.faults == (cut,)


def test_what_is_said_to_do_a_run_again_is_all_that_was_asked_for() -> None:
    assert asked(7, 1, 180, "", alone=False, rate=300) == "--seed 7 --seconds 180"
    assert (
        asked(7, 5, 60.5, "disk_full, kafka_cut", alone=True, rate=50)
        == "--seed 7 --runs 5 --seconds 60.5 --faults disk_full,kafka_cut --alone --rate 50"
    )
