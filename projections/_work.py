"""A transaction under way: what was loaded, and what its records come to."""

from collections.abc import Sequence
from datetime import datetime

from sitelog.projections._fold import Fold
from sitelog.projections._intake import Intake
from sitelog.projections._items import Item
from sitelog.projections._log_rows import Packer
from sitelog.projections._parked import Shelf


class Work:
    """Rows for the log are packed as events are taken, so that no event has to be kept until the end."""

    def __init__(self, shelf: Shelf, fold: Fold, intake: Intake) -> None:
        self.shelf = shelf
        self.fold = fold
        self.intake = intake
        self.rows: list[bytes] = []
        self.events = 0
        self.last_event_time: datetime | None = None
        self.decode_seconds = 0.0
        self._packer = Packer(intake.log_partition, intake.now)

    def take(self, items: Sequence[Item]) -> None:
        """Fold items whose rows are loaded, and pack what goes into the log."""
        self.intake.take_all(items)
        self.pack()

    def pack(self) -> None:
        """Pack what was taken since the last time."""
        log = self.intake.taken.log
        if not log:
            return
        self.rows.append(self._packer.packed(log))
        self.events += len(log)
        event = log[-1][1].event
        self.last_event_time = None if event is None else event.event_timestamp
        self.intake.taken.log = []
