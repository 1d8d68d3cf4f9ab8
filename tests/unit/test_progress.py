"""What a worker believes of its partitions: behind, moving, waiting for somebody, or stuck."""

from dataclasses import dataclass, field

import pytest

from sitelog.agents._progress import Progress
from sitelog.streams._batch import Claim, RecordBatch
from tests.partition import Record

SITES = "customer-sites-events"


@dataclass
class Clock:
    """Time that passes only when it is told to."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Watched:
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.progress = Progress(self.clock)

    def stuck(self, after: float) -> list[str]:
        """Let time pass, and ask for what hasn't moved for five seconds."""
        self.clock.now += after
        return self.progress.stuck(5)

    def moves_to(self, end: int) -> None:
        claim = Claim(SITES, 0, epoch=1, read_offset=end, applied_offset=end)
        records = [Record(end - 1, 1_700_000_000_000, b"site", b"")]
        self.progress.moved(RecordBatch(claim, end - 1, end, records, end))


def test_a_partition_with_nothing_to_do_is_never_stuck():
    watched = Watched()
    watched.progress.seen(SITES, 0, 10, 10)
    assert watched.stuck(after=1_000) == []


def test_what_has_been_read_and_not_applied_is_behind_and_gets_stuck():
    watched = Watched()
    watched.progress.seen(SITES, 0, 10, 30)
    assert watched.stuck(after=4) == []
    assert watched.stuck(after=2) == ["customer-sites-events[0] at 10 of 30 since 6 s"]


def test_the_clock_starts_when_there_is_something_to_do():
    watched = Watched()
    watched.progress.seen(SITES, 0, 10, 10)
    watched.clock.now += 1_000
    watched.progress.seen(SITES, 0, 10, 11)
    assert watched.stuck(after=4) == []
    assert watched.stuck(after=2) != []


def test_a_batch_that_is_applied_sets_a_stuck_partition_free():
    watched = Watched()
    watched.progress.seen(SITES, 0, 10, 30)
    watched.moves_to(20)
    assert watched.stuck(after=4) == []


def test_waiting_for_somebody_outside_is_not_being_stuck_and_is_told_until_it_moves():
    watched = Watched()
    watched.progress.seen(SITES, 0, 10, 30)
    watched.progress.failing(SITES, 0, "Postgres: the database system is starting up")
    assert watched.stuck(after=1_000) == []
    assert watched.progress.failures() == ["customer-sites-events[0]: Postgres: the database system is starting up"]
    watched.moves_to(20)
    assert watched.progress.failures() == []


def test_while_one_waits_for_somebody_outside_nobody_is_stuck_and_then_all_have_their_time():
    """Two transactions are tried, and the others wait for them: they can't even find out that Postgres is away."""
    watched = Watched()
    for partition in range(4):
        watched.progress.seen(SITES, partition, 10, 30)
    watched.progress.failing(SITES, 0, "Postgres: connection refused")
    assert watched.stuck(after=1_000) == []
    watched.moves_to(20)
    assert watched.stuck(after=4) == []
    assert watched.stuck(after=2) == [f"{SITES}[{partition}] at 10 of 30 since 1006 s" for partition in (1, 2, 3)]


@pytest.mark.parametrize("end", ["goes_on", "moving", "keep"])
def test_waiting_ends_in_each_way_with_time_for_all(end):
    watched = Watched()
    for partition in range(2):
        watched.progress.seen(SITES, partition, 10, 30)
    watched.progress.failing(SITES, 0, "schema registry: no answer")
    watched.clock.now += 1_000
    if end == "keep":
        watched.progress.keep({(SITES, 1)})
    else:
        getattr(watched.progress, end)(SITES, 0)
    assert watched.progress.failures() == []
    assert watched.stuck(after=4) == []
    assert "customer-sites-events[1] at 10 of 30 since 1006 s" in watched.stuck(after=2)


def test_while_kafka_does_not_answer_nobody_is_stuck_for_what_it_has():
    watched = Watched()
    watched.progress.seen(SITES, 0, 10, 30)
    watched.progress.reading("customer-sites-events[0]: Kafka did not answer: TimeoutError()")
    assert watched.stuck(after=1_000) == []
    assert watched.progress.failures() == ["customer-sites-events[0]: Kafka did not answer: TimeoutError()"]
    watched.progress.reading(None)
    assert watched.progress.failures() == []
    assert watched.stuck(after=4) == []
    assert watched.stuck(after=2) != []


def test_what_kafka_answers_while_nothing_is_read_is_no_reason_to_wait():
    watched = Watched()
    watched.progress.seen(SITES, 0, 10, 30)
    for _ in range(6):
        watched.clock.now += 1
        watched.progress.reading(None)
    assert watched.stuck(after=0) == ["customer-sites-events[0] at 10 of 30 since 6 s"]


def test_a_partition_that_another_worker_has_moved_meanwhile_is_where_that_one_left_it():
    """A frozen worker comes back: what it was behind with is done, and nobody may call it stuck for that."""
    watched = Watched()
    watched.progress.seen(SITES, 0, 10, 30)
    watched.progress.failing(SITES, 0, "Postgres: connection is closed")
    watched.progress.seen(SITES, 0, 30, 30)
    assert watched.stuck(after=1_000) == []
    assert watched.progress.failures() == []


def test_a_partition_that_is_somebody_elses_now_is_forgotten():
    watched = Watched()
    watched.progress.seen(SITES, 0, 10, 30)
    watched.progress.keep(set())
    assert watched.stuck(after=1_000) == []


def test_a_partition_that_is_put_off_is_never_stuck_itself_and_excuses_nobody_else():
    watched = Watched()
    for partition in range(2):
        watched.progress.seen(SITES, partition, 10, 30)
    watched.progress.put_off(SITES, 0, "schema registry: no answer")
    assert watched.stuck(after=6) == ["customer-sites-events[1] at 10 of 30 since 6 s"]
    assert watched.progress.failures() == ["customer-sites-events[0]: schema registry: no answer"]


def test_a_partition_that_is_put_off_no_more_has_its_time():
    watched = Watched()
    watched.progress.seen(SITES, 0, 10, 30)
    watched.progress.put_off(SITES, 0, "schema registry: no answer")
    watched.progress.keep(set(), {(SITES, 0)})
    assert watched.stuck(after=1_000) == []
    watched.progress.keep({(SITES, 0)})
    assert (watched.stuck(after=4), watched.progress.failures()) == ([], [])
    assert watched.stuck(after=2) != []
