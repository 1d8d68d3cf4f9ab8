"""A run's outcome: what it counts, and what makes it right."""

from tests.chaos.outcome import Outcome
from tests.chaos.report import tally
from tests.chaos.schedule import Crew, Fault, Schedule


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
