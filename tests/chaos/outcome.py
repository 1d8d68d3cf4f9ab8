"""What came of a run."""

from dataclasses import dataclass, field

from tests.chaos.checker import Violation
from tests.chaos.progress import Recovery
from tests.chaos.schedule import Schedule


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

    @property
    def is_right(self) -> bool:
        return not self.violations and self.level_seconds is not None
