"""What goes wrong and when: drawn from a seed, so that the same seed, length and kinds are the same schedule."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from tests.chaos.kinds import KINDS

SLOTS = 4
"""Workers at most."""

BROKERS = 3

ALONE_SECONDS_MIN = 90.0
"""Only in runs at least so long some faults have the stage for themselves: each costs its own recovery."""

ALONE_SHARE = 0.25
SETTLE_SECONDS = (8.0, 9.0)
"""Before and after one that strikes alone nothing else is broken for so long."""

GAP_SECONDS = (0.4, 2.2)
"""Between the beginnings of faults that overlap."""

RETURN_SECONDS = 6.0
"""Until a worker that was away has partitions again: the session of the one that it was before ends only then."""

SHUFFLES = 20
"""Tries to get every kind into the time."""

AT_ONCE_MAX = 2
"""Faults at a time: where everything is broken nothing happens that could go wrong."""

SHORT_RATHER_THAN_LONG = 2
"""Exponent: half of all lengths are in the first quarter of their range, so that a run holds more faults."""

BATCHES = (20, 500, 2_000, 16_000)


@dataclass(frozen=True)
class Fault:
    """`kind` strikes `at` seconds after the beginning and is healed `seconds` later.

    `target` is the number of a worker or a broker, from 0. `amount`, from 0 to 1, is for the kind to interpret.
    `alone`: nothing else is broken then, nor for some seconds before and after.
    """

    kind: str
    at: float
    seconds: float
    target: int
    amount: float
    alone: bool

    @property
    def until(self) -> float:
        return self.at + self.seconds

    @property
    def resources(self) -> list[str]:
        """What it breaks, sorted, so that whoever waits for all gets them: nothing is broken twice at a time."""
        kind = KINDS[self.kind]
        suffix = f"-{self.target}" if kind.targets in {"member", "spare"} else ""
        return sorted(f"{resource}{suffix}" for resource in kind.resources)


@dataclass(frozen=True)
class Crew:
    """The workers: so many from the beginning, the others are spare; who has a static name, and whose batches."""

    members: int
    static: tuple[bool, ...]
    batches: tuple[int, ...]


@dataclass(frozen=True)
class Schedule:
    seed: int
    seconds: float
    crew: Crew
    faults: tuple[Fault, ...]

    @property
    def kinds(self) -> set[str]:
        return {fault.kind for fault in self.faults}


def plan(seed: int, seconds: float, kinds: Sequence[str], *, alone: bool = False) -> Schedule:
    """Deal the kinds like a pack of cards, again and again, until the time is over.

    Each kind for which the crew is large enough comes once before any comes twice. Where the time is too short for all
    of them, what has most is taken.
    `alone`: no fault begins before the others are healed, and have been for some seconds.
    """
    share = 1.0 if alone else ALONE_SHARE if seconds >= ALONE_SECONDS_MIN else 0.0
    # How long a fault costs shows only where somebody is there to take over.
    members_min = 2 if alone else min((KINDS[kind].members_min for kind in kinds), default=1)
    crew = _draw_crew(random.Random(f"crew {seed}"), members_min)  # noqa: S311 - not a secret
    kinds = [kind for kind in kinds if KINDS[kind].members_min <= crew.members]
    best = Schedule(seed, seconds, crew, ())
    for shuffle in range(SHUFFLES):
        if best.kinds == set(kinds):
            break
        draw = random.Random(f"schedule {seed} {shuffle}")  # noqa: S311 - not a secret
        faults = _draw_faults(draw, seconds, kinds, crew, share)
        best = max(best, replace(best, faults=faults), key=lambda one: len(one.kinds))
    return best


def _draw_crew(draw: random.Random, members_min: int) -> Crew:
    # Once for a seed: among shuffles those would win whose crew leaves the most to break.
    return Crew(
        members=max(draw.choice((1, 2, 2, 3, 3)), members_min),
        static=tuple(draw.random() < 0.5 for _ in range(SLOTS)),
        batches=tuple(draw.choice(BATCHES) for _ in range(SLOTS)),
    )


def _draw_faults(
    draw: random.Random, seconds: float, kinds: Sequence[str], crew: Crew, alone_share: float
) -> tuple[Fault, ...]:
    faults: list[Fault] = []
    at = draw.uniform(*GAP_SECONDS)
    while kinds and at < seconds:
        for kind in draw.sample(sorted(kinds), len(kinds)):
            alone = draw.random() < alone_share
            fault = _draw_fault(draw, kind, seconds, crew, alone=alone)
            ready = max(_whole(fault, faults), _manned(fault, faults, crew))
            begin = max(at, _quiet(faults) if alone else _bearable(faults, at), ready)
            fault = replace(fault, at=round(begin, 2))
            if fault.until <= seconds:
                faults.append(fault)
                at = fault.until + draw.uniform(*SETTLE_SECONDS) if alone else begin
            at += draw.uniform(*GAP_SECONDS)
    return tuple(sorted(faults, key=attrgetter("at")))


def _whole(new: Fault, faults: Sequence[Fault]) -> float:
    """Return when everything that has broken the same thing before is healed."""
    broken = set(new.resources)
    return max((old.until + GAP_SECONDS[0] for old in faults if broken & set(old.resources)), default=0.0)


def _manned(new: Fault, faults: Sequence[Fault], crew: Crew) -> float:
    """Return when there is somebody to meet it: of a link's fault its worker, of Postgres's any of the crew."""
    resources = KINDS[new.kind].resources
    needed = (new.target,) if "link" in resources else range(crew.members) if "postgres" in resources else ()
    back = [
        max((old.until + RETURN_SECONDS for old in faults if f"worker-{member}" in old.resources), default=0.0)
        for member in needed
    ]
    return min(back, default=0.0)


def _quiet(faults: Sequence[Fault]) -> float:
    """Return when everything has been healed for a while."""
    return max((fault.until + SETTLE_SECONDS[0] for fault in faults), default=0.0)


def _bearable(faults: Sequence[Fault], at: float) -> float:
    """Return from when on, not before `at`, one more fault leaves something that still works."""
    ends = sorted(fault.until for fault in faults if fault.until > at)
    return at if len(ends) < AT_ONCE_MAX else ends[-AT_ONCE_MAX] + GAP_SECONDS[0]


def _draw_fault(draw: random.Random, name: str, seconds: float, crew: Crew, *, alone: bool) -> Fault:
    kind = KINDS[name]
    room = max(0.0, min(kind.longest, seconds / 3) - kind.shortest)
    targets = {"member": range(crew.members), "spare": range(crew.members, SLOTS), "broker": range(BROKERS), None: (0,)}
    return Fault(
        kind=name,
        at=0.0,
        seconds=round(kind.shortest + room * draw.random() ** SHORT_RATHER_THAN_LONG, 2),
        target=draw.choice(targets[kind.targets]),
        amount=round(draw.random(), 3),
        alone=alone,
    )
