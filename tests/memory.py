"""Read models in memory: what Postgres does for the fold, for tests that run in milliseconds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from sitelog.projections._fold import Fold, Ranges
from sitelog.projections._intake import Aside, Intake, Taken
from sitelog.projections._items import Item
from sitelog.projections._merge import Policy
from sitelog.projections._packed import RowFormat
from sitelog.projections._parked import Status
from sitelog.projections._projection import Key, Projection
from sitelog.projections._registry import Plan
from sitelog.projections._stored import Stored
from sitelog.projections._table import row_format
from sitelog.streams._event import Event
from sitelog.streams.errors import Park

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
PARTITIONS = {"customer-sites-events": 1, "territory-events": 2}


def item_of(event: Event, offset: int) -> Item:
    """The event as a record that was read and decoded, appended `offset` seconds after the beginning."""
    appended = BEGIN + timedelta(seconds=offset)
    return Item(offset, appended, event.entity_id.encode(), b"", (), event.entity_id, event, 7, b"body", None)


def unreadable(entity_id: str, offset: int) -> Item:
    """A record of the entity that nobody can decode."""
    problem = Park("wrong_bytes", "expected 00 or c3 01 at the beginning, got 7b 22")
    return Item(offset, BEGIN, entity_id.encode(), b"{}", (), entity_id, None, 0, b"", problem)


@dataclass
class Lane:
    """One log partition: its last log seq, and what is put aside there, by offset."""

    log_seq: int = 0
    shelf: dict[int, tuple[Item, Status]] = field(default_factory=dict)

    def stopped(self) -> dict[str, Status]:
        """Return who is stopped, and by what: their first event says it."""
        return {item.entity_id: status for _, (item, status) in sorted(self.shelf.items(), reverse=True)}

    def open(self, entity: str) -> list[Item]:
        """Return what of the entity is put aside, in the order of the topic."""
        return [_again(item, item.parked_id) for _, (item, _) in sorted(self.shelf.items()) if item.entity_id == entity]

    def put(self, taken: Taken) -> None:
        for closed in taken.closed:
            del self.shelf[closed.parked_id - 1]
        for row in taken.parked.values():
            offset = row.item.offset
            self.shelf[offset] = (_again(row.item, offset + 1), row.status)


class MemoryStore:
    """Takes batches as the transaction does: loads the rows they may touch, folds, writes the dirty ones back."""

    def __init__(self, plan: Plan, policy: Policy = "last_write_wins") -> None:
        self.plan = plan
        self.policy: Policy = policy
        self.rows: dict[Projection[Any], dict[Key, Stored]] = {p: {} for p in plan.projections}
        self.lanes = {topic: Lane() for topic in PARTITIONS}
        self.known: set[str] = set()
        self.taken: list[Taken] = []

    def take(self, batch: Sequence[Item], topic: str) -> Taken:
        lane = self.lanes[topic]
        stopped = lane.stopped()
        created = {item.entity_id for item in batch if item.event and self.plan.creates(type(item.event))}
        waiting = {entity: lane.open(entity) for entity in created if stopped.get(entity) == "waiting"}
        fold = Fold(self.plan, self.policy)
        self.load(fold, [item.event for items in (batch, *waiting.values()) for item in items if item.event])
        intake = Intake(fold, PARTITIONS[topic], lane.log_seq, BEGIN, aside=Aside(stopped, waiting), known=self.known)
        intake.take_all(batch)
        self.write(fold)
        self.known |= {item.event.event_id for _, item in intake.taken.log if item.event}
        self.taken.append(intake.taken)
        lane.log_seq = intake.log_seq
        lane.put(intake.taken)
        return intake.taken

    def load(self, fold: Fold, events: Iterable[Event]) -> None:
        for projection, keys in fold.missing(events).items():
            stored = self.rows[projection]
            if projection.per_entity:
                for key in keys:
                    mine = {row: _copied(projection, stored[row]) for row in sorted(stored) if row[:1] == key}
                    if mine:
                        fold.ranges[projection][key] = Ranges(mine, set())
            else:
                fold.rows[projection] |= {key: _copied(projection, stored[key]) for key in keys & stored.keys()}

    def write(self, fold: Fold) -> None:
        for projection, rows in fold.rows.items():
            self.rows[projection].update(_changed(rows))
        for projection, entities in fold.ranges.items():
            for ranges in entities.values():
                for key in ranges.removed:
                    self.rows[projection].pop(key, None)
                self.rows[projection].update(_changed(ranges.rows))

    def tables(self) -> dict[str, dict[Key, dict[str, Any]]]:
        """Every row with all that the store keeps, by read model and key; JSON as values."""
        return {
            projection.name: {key: _as_dict(projection, stored) for key, stored in rows.items()}
            for projection, rows in self.rows.items()
        }


def _json_columns(projection: Projection[Any]) -> set[str]:
    return {column for column, (kind, _) in projection.columns.items() if kind == "jsonb"}


def _changed(rows: dict[Key, Stored]) -> dict[Key, Stored]:
    return {key: stored for key, stored in rows.items() if stored.at is not None}


def record_of(form: RowFormat, values: Sequence[Any]) -> bytes:
    """What `record_send` gives for a row of these values."""
    packed = form.packed(values)
    return len(packed).to_bytes(4) + b"".join(b"\0\0\0\x19" + value for value in packed)


def _copied(projection: Projection[Any], stored: Stored) -> Stored:
    """The row as it comes back from Postgres: another object, its JSON spaced and ordered by jsonb."""
    values = list(stored.values)
    for column in _json_columns(projection):
        at = projection.index[column]
        if values[at] is not None:
            parsed = orjson.loads(values[at])
            values[at] = orjson.dumps(parsed, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2).decode()
    form = row_format(projection)
    return Stored.loaded(form, record_of(form, values), stored.version, stored.versions_json(), bytes(6), 1)


def _again(item: Item, parked_id: int | None) -> Item:
    """The item as the shelf gives it back."""
    return Item(
        item.offset,
        item.append_time,
        item.key,
        item.value,
        item.headers,
        item.entity_id,
        item.event,
        item.fingerprint,
        item.body,
        item.problem,
        parked_id,
    )


def _as_dict(projection: Projection[Any], stored: Stored) -> dict[str, Any]:
    values = dict(zip(projection.columns, stored.values, strict=True))
    for column in _json_columns(projection):
        values[column] = None if values[column] is None else orjson.loads(values[column])
    assert stored.at is not None
    return values | {
        "version": stored.version,
        "field_versions": stored.field_versions or None,
        "updated_at": stored.at.append_time,
        "log_seq": stored.at.log_seq,
    }
