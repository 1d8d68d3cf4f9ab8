"""What came of a run."""

import signal
from collections import Counter
from dataclasses import dataclass, field, replace

from tests.chaos.checker import Violation
from tests.chaos.progress import Recovery
from tests.chaos.schedule import Fault, Schedule

ENDS = {69}
"""Exit codes with which a worker may end by itself, to be started again: something was away."""

STOPS = {0, 143, -signal.SIGTERM}
"""Exit codes after SIGTERM: the latter two while it starts, by its own hand or before it has one."""

STILL_BUSY = 71
FREEZES = {"worker_frozen", "worker_zombie"}
SILENCE = "postgres_silent"
"""A transaction that is under way then has no answer to wait for, however patient SIGTERM is."""

STOPPERS = {"worker_terminated", "worker_leaves", "worker_joins"}
"""SIGTERM may come while the group waits for a frozen member: a request to join can't be taken back."""

EXPIRY_SECONDS = 6.0
"""For so long after that the group may wait: a session."""


@dataclass
class Outcome:
    """What came of a run. `level_seconds`: from the last healing until all was applied; None: it never was."""

    schedule: Schedule
    error: str | None = None
    """What broke the run off."""
    left_out: tuple[str, ...] = ()
    """Kinds of the schedule that can't be done here."""
    events: int = 0
    acknowledged: int = 0
    repeats: int = 0
    level_seconds: float | None = None
    violations: list[Violation] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    """Exit codes of workers that ended though nobody had asked them to."""
    stopped: list[int] = field(default_factory=list)
    """Exit codes of workers after SIGTERM."""
    stop_seconds_max: float = 0.0
    marks: dict[str, int] = field(default_factory=dict)
    """What the faults have really met."""
    without_effect: list[Fault] = field(default_factory=list)
    """Those that have met nothing, of the kinds of which that is counted."""

    @property
    def kinds(self) -> set[str]:
        """The kinds of the faults that have met something, as far as is known."""
        met = Counter(fault.kind for fault in self.schedule.faults)
        met.subtract(fault.kind for fault in self.without_effect)
        return set(+met)

    @property
    def is_right(self) -> bool:
        is_whole = self.error is None and self.level_seconds is not None
        return is_whole and not self.violations and not self.wrong_codes

    def leave_out(self, kind: str) -> None:
        """Take a kind out of the schedule, if it has it; all else stays where it is."""
        if kind in self.schedule.kinds:
            self.left_out = (*self.left_out, kind)
            kept = tuple(fault for fault in self.schedule.faults if fault.kind != kind)
            self.schedule = replace(self.schedule, faults=kept)

    @property
    def wrong_codes(self) -> list[int]:
        """The exit codes that no worker should have had."""
        stops = STOPS | ({STILL_BUSY} if _stops_in_vain(self.schedule) else set())
        return [
            *(code for code in self.ended if code not in ENDS),
            *(code for code in self.stopped if code not in stops),
        ]


def named(error: BaseException) -> str:
    """Return an error's name and the first line of what it says; of several at once the first one's."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}".partition("\n")[0].removesuffix(": ")


def _stops_in_vain(schedule: Schedule) -> bool:
    """Tell whether a worker is told to end while its Postgres is silent, or another one is frozen or was just now."""
    stops = [one for one in schedule.faults if one.kind in STOPPERS]
    moments = [(one, one.until if one.kind == "worker_joins" else one.at) for one in stops]
    return any(
        (other.kind in FREEZES and other.target != stop.target and other.at <= moment <= other.until + EXPIRY_SECONDS)
        or (other.kind == SILENCE and other.target == stop.target and other.at <= moment <= other.until)
        for other in schedule.faults
        for stop, moment in moments
    )
