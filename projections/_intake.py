"""Takes records one by one: applies them, or puts them aside without stopping anybody but their entity."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any

from sitelog.projections._fold import Fold, Waits
from sitelog.projections._items import Item
from sitelog.projections._log_rows import LogEntry
from sitelog.projections._parked import Closed, ParkedRow, Status
from sitelog.projections._stored import At
from sitelog.streams._event import Event
from sitelog.streams.errors import Park

ConflictRow = tuple[Any, ...]


@dataclass(slots=True)
class Taken:
    """What came of the records: events for the log, rows for the parked events and for the conflicts."""

    log: list[LogEntry] = field(default_factory=list)
    fingerprints: set[int] = field(default_factory=set)  # of the schemas that the events were written with
    parked: dict[tuple[int, datetime], ParkedRow] = field(default_factory=dict)
    closed: list[Closed] = field(default_factory=list)
    conflicts: list[ConflictRow] = field(default_factory=list)
    duplicates: int = 0

    @property
    def last_event_time(self) -> datetime | None:
        """When the last event happened."""
        event = self.log[-1][1].event if self.log else None
        return None if event is None else event.event_timestamp


@dataclass(slots=True)
class Aside:
    """What is put aside already of the entities that the records are of; all of it is taken over.

    `stopped` says by what: an entity whose first open event is merely `behind` is free, and its open events go first.
    `waiting` are the open events of those that these records may set free. Where an entity has too many for one
    transaction, they are the first of them, and `last` is the last of these.
    """

    stopped: dict[str, Status] = field(default_factory=dict)
    waiting: dict[str, list[Item]] = field(default_factory=dict)
    last: Item | None = None

    def items(self) -> list[Item]:
        """Return all events that are loaded."""
        return list(chain.from_iterable(self.waiting.values()))


class Intake:
    """Folds the records of one log partition, in their order, from the log seq `log_seq` on.

    `known` are the ids of events that are in the log already.
    """

    def __init__(
        self,
        fold: Fold,
        log_partition: int,
        log_seq: int,
        now: datetime,
        *,
        aside: Aside,
        known: Iterable[str] = (),
    ) -> None:
        self.log_seq = log_seq
        self.taken = Taken()
        self._fold = fold
        self._log_partition = log_partition
        self.now = now
        self._stopped = aside.stopped
        self._waiting = aside.waiting
        self._last = aside.last
        self._seen = set(known)
        self._fingerprint: int | None = None  # of the last event

    @property
    def unfinished(self) -> bool:
        """Tell whether more may go on than one transaction takes: the record that it goes before must come again."""
        return self._last is not None and self._last.entity_id not in self._stopped

    @property
    def waits_after(self) -> Item | None:
        """Return the last event that was taken of an entity which still waits and has more behind, None if none is."""
        last = self._last
        return last if last is not None and self._stopped.get(last.entity_id) == "waiting" else None

    def take_all(self, items: Iterable[Item]) -> None:
        """Take records one after the other."""
        for item in items:
            self.take(item)

    def take(self, item: Item) -> None:
        """Apply one record, or put it aside with its reason."""
        entity = item.entity_id
        event = item.event
        status = self._stopped.get(entity) if self._stopped else None
        if status == "behind":
            self.release(entity)
            if self.unfinished:
                return
            status = self._stopped.get(entity)
        if event is None:
            self._stop(item, item.problem or Park("unreadable", "no event"))
            if status == "waiting":
                self._waiting.setdefault(entity, []).append(item)  # a creation that comes later must stop here too
            return
        event_id: str = event.__dict__["event_id"]  # an attribute costs more
        if event_id in self._seen:
            self.taken.duplicates += 1
            return
        if status is None:
            self._apply_or_stop(item, event, event_id)
        elif status == "waiting" and self._fold.creates_missing(event):
            self._create_and_release(item, event, event_id)
        else:
            self._put(item, "behind", Park("behind", "an earlier event of this entity is put aside"))
            if status == "waiting":
                self._waiting.setdefault(entity, []).append(item)

    def retake(self, item: Item) -> None:
        """Take a record that was put aside, and close it unless it has to stay."""
        repeated = item.event is not None and item.event.event_id in self._seen
        self.taken.parked.pop(_place(item), None)
        self.take(item)
        if _place(item) not in self.taken.parked:
            self._close(item, "discarded" if repeated else "applied")

    def _apply_or_stop(self, item: Item, event: Event, event_id: str) -> None:
        try:
            self._apply(item, event, event_id)
        except Waits as waits:
            self._put(item, "waiting", waits)
            self._stopped[item.entity_id] = "waiting"
            self._waiting[item.entity_id] = [item]
        except Park as park:
            self._stop(item, park)

    def _create_and_release(self, item: Item, event: Event, event_id: str) -> None:
        """Apply the creation that others wait for, and then take those that waited again."""
        entity = item.entity_id
        try:
            self._apply(item, event, event_id)
        except Park as park:
            self._put(item, "behind", park)
            self._waiting.setdefault(entity, []).append(item)
            return
        self.release(entity)

    def release(self, entity: str) -> None:
        """Take what is put aside of an entity again, in its order.

        Among it may be creations that could not be applied before, and that others wait for.
        """
        self._stopped.pop(entity, None)
        for waiting in self._waiting.pop(entity, []):
            self.retake(waiting)

    def take_creations(self, creations: Iterable[Item], known: Iterable[str]) -> None:
        """Take creations from behind `waits_after`, ahead of their turn, for as long as those in front wait.

        `known` are the ids among them that are in the log already.
        """
        self._seen.update(known)
        for creation in creations:
            if self.waits_after is None:
                return
            self._last = creation
            if creation.event is not None and self._fold.creates_missing(creation.event):
                self.retake(creation)

    def _apply(self, item: Item, event: Event, event_id: str) -> None:
        seq = self.log_seq + 1
        conflicts = self._fold.apply(event, At(seq, item.append_time))
        self.log_seq = seq
        self._seen.add(event_id)
        self.taken.log.append((seq, item))
        if item.fingerprint != self._fingerprint:
            self._fingerprint = item.fingerprint
            self.taken.fingerprints.add(item.fingerprint)
        for c in conflicts:
            self.taken.conflicts.append(
                (
                    self._log_partition,
                    seq,
                    c.projection,
                    item.entity_id,
                    event_id,
                    c.field,
                    c.reason,
                    c.expected,
                    c.found,
                    c.resolution,
                    self.now,
                )
            )

    def _stop(self, item: Item, park: Park) -> None:
        if item.entity_id:
            self._stopped.setdefault(item.entity_id, "parked")
        self._put(item, "parked", park)

    def _put(self, item: Item, status: Status, park: Park) -> None:
        self.taken.parked[_place(item)] = ParkedRow(item, status, park.reason, str(park))

    def _close(self, item: Item, status: Any) -> None:
        if item.parked_id is not None:
            self.taken.closed.append(Closed(item.parked_id, status))


def _place(item: Item) -> tuple[int, datetime]:
    """Name a record of this partition: an offset alone may be that of a topic that was created again."""
    return item.offset, item.append_time
