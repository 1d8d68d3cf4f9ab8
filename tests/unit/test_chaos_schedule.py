"""A seed is a schedule: the same every time, with every kind in it, and with something left that works."""

import pytest

from tests.chaos.inflict import INFLICT
from tests.chaos.kinds import KINDS
from tests.chaos.schedule import (
    ALONE_SECONDS_MIN,
    AT_ONCE_MAX,
    BROKERS,
    RETURN_SECONDS,
    SETTLE_SECONDS,
    SLOTS,
    Schedule,
    plan,
)

SEEDS = range(12)
ROUNDING = 0.011


def full(seed: int) -> Schedule:
    return plan(seed, 180, list(KINDS))


def test_every_kind_can_be_done() -> None:
    assert INFLICT.keys() == KINDS.keys()


def test_a_seed_gives_the_same_schedule_whatever_order_the_kinds_are_named_in() -> None:
    assert full(7) == full(7) == plan(7, 180, list(reversed(KINDS)))
    assert full(7) != full(8)


@pytest.mark.parametrize("seed", SEEDS)
def test_three_minutes_hold_every_kind(seed: int) -> None:
    schedule = full(seed)
    assert schedule.kinds == {name for name, kind in KINDS.items() if kind.members_min <= schedule.crew.members}


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_is_healed_when_the_time_is_over(seed: int) -> None:
    for seconds in (20, 60, 180):
        assert all(0 < fault.at < fault.until <= seconds for fault in plan(seed, seconds, list(KINDS)).faults)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_broken_twice_at_a_time_nor_too_much_at_once(seed: int) -> None:
    faults = full(seed).faults
    for fault in faults:
        others = [one for one in faults if one is not fault and one.at <= fault.at < one.until]
        assert not {resource for one in others for resource in one.resources} & set(fault.resources)
        assert len(others) < AT_ONCE_MAX


@pytest.mark.parametrize("seed", SEEDS)
def test_what_strikes_alone_is_alone_before_and_after(seed: int) -> None:
    faults = full(seed).faults
    margin = SETTLE_SECONDS[0] - ROUNDING
    alone = [fault for fault in faults if fault.alone]
    assert alone
    for fault in alone:
        for other in faults:
            assert other is fault or other.until + margin <= fault.at or fault.until + margin <= other.at


@pytest.mark.parametrize("seed", SEEDS)
def test_members_are_broken_and_spare_workers_join(seed: int) -> None:
    schedule = full(seed)
    for fault in schedule.faults:
        if KINDS[fault.kind].targets == "member":
            assert 0 <= fault.target < schedule.crew.members
        elif KINDS[fault.kind].targets == "spare":
            assert schedule.crew.members <= fault.target < SLOTS
        elif KINDS[fault.kind].targets == "broker":
            assert 0 <= fault.target < BROKERS


@pytest.mark.parametrize("seed", range(60))
def test_whoever_has_to_meet_a_fault_is_there(seed: int) -> None:
    schedule = full(seed)
    members = range(schedule.crew.members)

    def is_away(member: int, at: float) -> bool:
        of_worker = [fault for fault in schedule.faults if f"worker-{member}" in fault.resources]
        return any(fault.at < at < fault.until + RETURN_SECONDS - ROUNDING for fault in of_worker)

    for fault in schedule.faults:
        resources = KINDS[fault.kind].resources
        if "link" in resources:
            assert not is_away(fault.target, fault.at)
        elif "postgres" in resources:
            assert not all(is_away(member, fault.at) for member in members)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_zombie_has_a_successor_and_its_link_for_itself(seed: int) -> None:
    schedule = full(seed)
    zombies = [fault for fault in schedule.faults if fault.kind == "worker_zombie"]
    assert bool(zombies) is (schedule.crew.members > 1)
    for zombie in zombies:
        assert zombie.resources == [f"link-{zombie.target}", f"worker-{zombie.target}"]


def test_one_fault_at_a_time_meets_a_crew_in_which_somebody_can_take_over() -> None:
    assert {plan(seed, 180, list(KINDS), alone=True).crew.members for seed in range(50)} == {2, 3}


def test_whoever_asks_for_zombies_alone_gets_them() -> None:
    assert all(plan(seed, 60, ["worker_zombie"]).kinds for seed in SEEDS)


def test_crews_are_of_one_two_and_three() -> None:
    assert {full(seed).crew.members for seed in SEEDS} == {1, 2, 3}
    assert {plan(seed, 35, list(KINDS)).crew.members for seed in SEEDS} == {1, 2, 3}


def test_only_the_kinds_that_were_asked_for_are_dealt() -> None:
    faults = plan(1, 60, ["worker_killed", "disk_full"]).faults
    assert {fault.kind for fault in faults} == {"worker_killed", "disk_full"}


def test_without_a_kind_there_is_no_fault() -> None:
    assert plan(1, 60, []).faults == ()


def test_a_short_run_has_no_time_for_faults_that_strike_alone() -> None:
    assert not any(fault.alone for fault in plan(1, ALONE_SECONDS_MIN - 1, list(KINDS)).faults)


def test_all_faults_strike_alone_if_asked_for() -> None:
    faults = plan(1, 60, list(KINDS), alone=True).faults
    assert len(faults) > 2
    assert all(fault.alone for fault in faults)
