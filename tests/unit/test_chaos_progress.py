"""How long something stood still, computed from looks at ends and positions."""

from typing import Any

import pytest

from tests.chaos.progress import (
    AFTERMATH_SECONDS,
    Observer,
    Recovery,
    Sample,
    Standstill,
    Strike,
    recoveries,
    standstills,
)

P, Q = ("topic", 0), ("topic", 1)


def samples(*looks: tuple[float, dict, dict]) -> list[Sample]:
    return [Sample(at, ends, positions) for at, ends, positions in looks]


def test_a_partition_that_has_nothing_to_do_does_not_stand_still() -> None:
    assert standstills(samples((0, {P: 5}, {P: 5}), (1, {P: 5}, {P: 5}), (9, {P: 5}, {P: 5}))) == []


def test_a_partition_that_is_behind_and_moves_at_every_look_stood_still_only_in_between() -> None:
    found = standstills(samples((0, {P: 5}, {P: 1}), (1, {P: 9}, {P: 5}), (2, {P: 9}, {P: 9})))
    assert found == [Standstill(P, 0, 1), Standstill(P, 1, 2)]


def test_a_standstill_lasts_from_the_first_look_that_is_behind_to_the_first_that_has_moved() -> None:
    looks = samples((0, {P: 5}, {P: 5}), (1, {P: 6}, {P: 5}), (2, {P: 7}, {P: 5}), (3, {P: 8}, {P: 7}))
    assert standstills(looks) == [Standstill(P, 1, 3), Standstill(P, 3, 3)]


def test_partitions_are_looked_at_one_by_one() -> None:
    looks = samples((0, {P: 5, Q: 5}, {P: 1}), (4, {P: 5, Q: 5}, {P: 5}), (7, {P: 5, Q: 5}, {P: 5, Q: 2}))
    assert standstills(looks) == [Standstill(P, 0, 4), Standstill(Q, 0, 7), Standstill(Q, 7, 7)]


def test_one_that_never_ends_lasts_until_the_last_look() -> None:
    assert standstills(samples((0, {P: 5}, {}), (8, {P: 5}, {}))) == [Standstill(P, 0, 8)]


def recovery(strike: Strike, found: list[Standstill]) -> Recovery:
    (only,) = recoveries([strike], found)
    return only


def test_a_fault_is_to_blame_for_what_stood_still_from_when_it_struck() -> None:
    strike = Strike("worker_killed", "worker_killed (static)", begin=10, end=12, alone=True)
    found = [Standstill(P, 9.9, 13.5), Standstill(Q, 10.1, 11)]
    assert recovery(strike, found) == Recovery(
        "worker_killed", "worker_killed (static)", alone=True, longest=3.5, after_end=1.5
    )


def test_what_begins_soon_after_the_end_of_a_fault_is_its_doing_and_what_begins_later_is_not() -> None:
    strike = Strike("worker_joins", "worker_joins", begin=10, end=12, alone=False)
    late = Standstill(P, 12 + AFTERMATH_SECONDS + 0.1, 40)
    assert recovery(strike, [Standstill(P, 14, 16), late]).after_end == 2
    assert recovery(strike, [late]).after_end == 0


def test_what_was_over_before_a_fault_struck_is_not_its_doing() -> None:
    strike = Strike("postgres_slow", "postgres_slow", begin=10, end=12, alone=True)
    assert recovery(strike, [Standstill(P, 2, 9)]) == Recovery(
        "postgres_slow", "postgres_slow", alone=True, longest=0, after_end=0
    )


def test_what_struck_while_another_fault_was_not_over_has_not_struck_alone() -> None:
    slow = Strike("worker_killed", "worker_killed", begin=10, end=12, alone=True)
    next_one = Strike("broker_killed", "broker_killed", begin=18, end=20, alone=True)
    assert [one.alone for one in recoveries([slow, next_one], [Standstill(P, 11, 17)])] == [True, True]
    assert [one.alone for one in recoveries([slow, next_one], [Standstill(P, 11, 19)])] == [False, True]
    healed_late = Strike("worker_killed", "worker_killed", begin=10, end=19, alone=True)
    assert [one.alone for one in recoveries([healed_late, next_one], [])] == [False, False]


class Postgres:
    """Has these positions, or is away."""

    def __init__(self) -> None:
        self.positions = {P: 0}
        self.is_away = False

    async def connect(self) -> Any:
        return self

    async def fetch(self, _: str) -> list[tuple[str, int, int]]:
        if self.is_away:
            raise ConnectionResetError
        return [(*place, offset) for place, offset in self.positions.items()]

    def is_closed(self) -> bool:
        return False

    def terminate(self) -> None:
        """There is nothing to end."""


@pytest.mark.parametrize(("acknowledged", "end"), [(5, 6), (6, 5)], ids=str)
async def test_nothing_is_level_before_all_in_the_topic_and_all_acknowledged_is_applied(
    acknowledged: int, end: int
) -> None:
    postgres = Postgres()
    observer = Observer(postgres.connect, lambda: {P: acknowledged})
    assert not observer.is_level({})
    postgres.positions = {P: 5}
    await observer.look()
    assert not observer.is_level({P: end})
    postgres.positions = {P: 6}
    await observer.look()
    assert observer.is_level({P: end})


async def test_what_can_t_be_applied_while_postgres_is_away_stands_still_from_the_beginning_on() -> None:
    postgres, ends = Postgres(), {P: 0}
    observer = Observer(postgres.connect, lambda: ends)
    await observer.look()
    postgres.is_away = True
    ends[P] = 5
    for _ in range(3):
        await observer.look()
    postgres.is_away = False
    postgres.positions = {P: 5}
    await observer.look()
    assert [(sample.ends, sample.positions) for sample in observer.samples] == [
        ({P: 0}, {P: 0}),
        *[({P: 5}, {P: 0})] * 3,
        ({P: 5}, {P: 5}),
    ]
    assert standstills(observer.samples) == [Standstill(P, observer.samples[1].at, observer.samples[4].at)]
