"""What came of a run."""

from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.checker import Violation
from tests.chaos.progress import Recovery
from tests.chaos.schedule import Fault, Schedule


@dataclass
class Outcome:
    """What came of a run. `level_seconds`: from the last healing until all was applied; None: it never was."""

    schedule: Schedule
    left_out: tuple[str, ...] = ()
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
        return not self.violations and self.level_seconds is not None
