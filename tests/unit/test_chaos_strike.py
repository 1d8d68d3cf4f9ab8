"""Faults strike when they are due, and those that have met nothing are known afterwards."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos.inflict import World
from tests.chaos.kinds import KINDS
from tests.chaos.met import COUNTED
from tests.chaos.schedule import Crew, Fault, Schedule
from tests.chaos.strike import Striker

CREW = Crew(members=1, static=(False,) * 4, batches=(20,) * 4)


class Eager:
    """A producer that sends one event again as soon as it is told to, if it has any."""

    def __init__(self, *, has_events: bool) -> None:
        self.repeated = 0
        self._has_events = has_events

    @property
    def repeats(self) -> bool:
        return False

    @repeats.setter
    def repeats(self, wanted: bool) -> None:
        self.repeated += wanted and self._has_events


def struck(*, has_events: bool) -> Striker:
    """Return a striker that has had a producer send events twice for a moment."""
    nothing: Any = SimpleNamespace()
    producer: Any = Eager(has_events=has_events)
    fault = Fault("sent_twice", at=0.0, seconds=0.01, target=0, amount=0.5, alone=False)
    world = World(nothing, "sitelog", [], [producer])
    striker = Striker(world, Schedule(seed=1, seconds=0.02, crew=CREW, faults=(fault,)), say=lambda _: None)
    asyncio.run(striker.strike())
    return striker


def test_only_kinds_that_there_are_are_counted() -> None:
    assert COUNTED.keys() <= KINDS.keys()


@pytest.mark.parametrize("has_events", [False, True])
def test_a_fault_that_has_met_nothing_is_known(*, has_events: bool) -> None:
    striker = struck(has_events=has_events)
    assert list(striker.schedule.faults if not has_events else ()) == striker.without_effect
