"""Folds events into rows, in memory: no I/O, no clock, the same rows from the same events every time."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sitelog.projections._merge import EVERY_FIELD, Changed, Conflict, Merged, Merger, Policy
from sitelog.projections._projection import Handler, Key, Projection, change_of
from sitelog.projections._registry import Plan
from sitelog.projections._stored import At, Stored
from sitelog.streams._event import Event
from sitelog.streams.errors import Park


class Waits(Park):
    """The event came before the one that creates its row."""

    def __init__(self, projection: str, key: Key) -> None:
        super().__init__("waiting", f"{projection} has no row {'/'.join(map(str, key))} yet: waiting for its creation")


class Misplaced(Park):
    """The event's row is made of the events of another partition."""

    def __init__(self) -> None:
        expected = "expected it in the partition of its entity's earlier events, whose rows no other one may change"
        super().__init__("wrong_partition", f"{expected}: its producer chose another by the same key")


@dataclass(slots=True)
class Ranges:
    """All rows of one entity in a History, by key, and the keys that are to be removed."""

    rows: dict[Key, Stored]
    removed: set[Key]


# An attribute of an event costs more than a value of a dictionary, several times: BaseModel has a __getattr__.
Values = dict[str, Any]
"""What an event holds, by field."""


class Step:
    """One handler and the rows that it finds in one fold: what would else be looked up for every event."""

    def __init__(
        self, handler: Handler, rows: dict[Key, Stored], ranges: dict[Key, Ranges], log_partition: int | None
    ) -> None:
        projection = handler.projection
        self._log_partition = log_partition
        self.handler = handler
        self.rows = rows
        self.ranges = ranges
        self.name: str = projection.name
        self.per_entity: bool = projection.per_entity
        self.creates: bool = handler.kind == "creates"
        self.owns: bool = handler.owns
        self.needs_row: bool = handler.needs_row
        self.merger = Merger(self.name, projection.index, projection.json_columns, handler.fields)
        self._change = None if handler.change is change_of else handler.change
        self.make = projection.make
        self.tombstone = projection.tombstone_index
        self._own_key: bool = handler.own_key
        self._key_of = handler.key
        self._changed = handler.changed

    def key(self, event: Event, values: Values, own: Key) -> Key | None:
        """Return the key of the row, or in a History of the entity, that the event touches; `own` is its entity's.

        Raises Park where the read model can't tell.
        """
        if self._changed is not None and self._changed not in values["changed_fields"]:
            return None
        if self._own_key:
            return own
        key: Key | None = _guarded(self.name, self._key_of, event)
        return key

    def row(self, key: Key) -> Stored | None:
        """Return the row of this key; raises Waits where there must be one and isn't, and what `expect_own` raises."""
        stored = self.rows.get(key)
        if stored is not None:
            self.expect_own(stored)
        elif self.needs_row:
            raise Waits(self.name, key)
        return stored

    def expect_own(self, stored: Stored) -> None:
        """Raise Misplaced for another partition's row, also if nothing came of it: a replay wouldn't find the row."""
        if stored.log_partition is not None and self._log_partition not in (None, stored.log_partition):
            raise Misplaced

    def change_of(self, event: Event, values: Values) -> Changed:
        """Return which fields are meant, what the producer saw and what it wants."""
        if self._change is not None:
            change = self._change(event)
            return change.fields, change.old, change.new
        return values["changed_fields"], values["old_values"], values["new_values"]  # as `change_of`

    def is_deleted(self, stored: Stored) -> bool:
        """Tell whether the row is one that was deleted."""
        return self.tombstone is not None and stored.value(self.tombstone) is not None


class Steps:
    """What one type of event goes through in one fold."""

    def __init__(self, event: type[Event], steps: list[Step]) -> None:
        self.key_field: str = event.key_field
        self.steps = steps


class Fold:
    """The rows that a batch touches, and what its events make of them.

    Load the rows that are `missing` before `apply`. An event is applied to all read models or to none.
    `decided` maps event ids to what was decided on their conflicts when they were applied first: a replay sets it
    for the events to come, so that it decides alike whatever the policy is by then.
    Rows that the events of another partition than `log_partition` have made take none of these; None knows no other.
    """

    def __init__(self, plan: Plan, policy: Policy, log_partition: int | None = None) -> None:
        self._log_partition = log_partition
        self._handlers = plan.handlers
        self._policy: Policy = policy
        self._steps: dict[type[Event], Steps] = {}
        self.decided: Mapping[str, Policy] = {}
        self.rows: dict[Projection[Any], dict[Key, Stored]] = {p: {} for p in plan.projections if not p.per_entity}
        self.ranges: dict[Projection[Any], dict[Key, Ranges]] = {p: {} for p in plan.projections if p.per_entity}

    def missing(self, events: Iterable[Event]) -> dict[Projection[Any], set[Key]]:
        """Return what the events may touch and the fold doesn't have, by read model."""
        missing: dict[Projection[Any], set[Key]] = {}
        for event in events:
            steps, values = self._steps_of(event), event.__dict__
            own = (values[steps.key_field],)
            for step in steps.steps:
                try:
                    key = step.key(event, values, own)
                except Park:
                    continue  # `apply` says so
                if key is not None and key not in step.rows and key not in step.ranges:
                    projection = step.handler.projection
                    keys = missing.get(projection)
                    if keys is None:
                        missing[projection] = {key}
                    else:
                        keys.add(key)
        return missing

    def creates_missing(self, event: Event) -> bool:
        """Tell whether the event creates a row that isn't there: such an event needn't wait behind others."""
        steps, values = self._steps_of(event), event.__dict__
        own = (values[steps.key_field],)
        try:
            keys = [(step.rows, step.key(event, values, own)) for step in steps.steps if step.creates]
        except Park:
            return False
        return any(key is not None and key not in rows for rows, key in keys)

    def apply(self, event: Event, at: At) -> tuple[Conflict, ...]:
        """Fold one event into every read model, and return the conflicts that it met.

        Raises Waits where a row that must exist doesn't, and Park where a read model can't take the event; then
        nothing has changed.
        """
        steps = self._steps_of(event)
        values: Values = event.__dict__
        own = (values[steps.key_field],)
        staged: list[tuple[dict[Key, Any], Key, Any]] = []
        changed: Stored | None = None
        merged: Merged | None = None
        for step in steps.steps:
            key = step.key(event, values, own)
            if key is None:
                continue
            if step.per_entity:
                staged.append((step.ranges, key, self._follow(step, step.ranges.get(key), event, at)))
                continue
            stored = step.row(key)
            if stored is not None and step.owns:
                merged = self._decide(step, stored, event, values)
                if not merged.accepted:
                    break  # rejected as a whole: the other read models must not see it either
                if step.creates:
                    staged.append((step.rows, key, self._create_again(step, stored, event, at)))
                else:
                    changed = stored
                event, values = _narrowed(event, values, merged)
                continue
            called = self._call(step, stored, event, at)
            if called is not None:
                staged.append((step.rows, key, called))
        for target, key, value in staged:
            target[key] = value
        if changed is not None and merged is not None:
            changed.change(merged.values, merged.accepted, at)
        return () if merged is None else merged.conflicts

    def _steps_of(self, event: Event) -> Steps:
        steps = self._steps.get(type(event))
        if steps is None:
            none: dict[Key, Any] = {}
            steps = self._steps[type(event)] = Steps(
                type(event),
                [
                    Step(
                        handler,
                        self.rows.get(handler.projection, none),
                        self.ranges.get(handler.projection, none),
                        self._log_partition,
                    )
                    for handler in self._handlers[type(event)]
                ],
            )
        return steps

    def _decide(self, step: Step, stored: Stored, event: Event, values: Values) -> Merged:
        policy = self.decided.get(event.event_id, self._policy) if self.decided else self._policy
        deleted = step.is_deleted(stored)
        if not step.creates:
            try:
                change, expected_version = step.change_of(event, values), values["expected_version"]
                return step.merger.merge(stored, change, expected_version, policy, deleted=deleted)
            except Park:
                raise
            except Exception as error:
                raise _failed(step.name, error) from error
        # Over a row that was deleted it creates as a matter of course.
        exists = () if deleted else (Conflict(step.name, EVERY_FIELD, "exists", "no row", "a row", policy),)
        return Merged({}, () if exists and policy == "reject" else (EVERY_FIELD,), exists)

    def _create_again(self, step: Step, stored: Stored, event: Event, at: At) -> Stored:
        version = stored.version + 1
        values = _guarded(step.name, step.handler.fold, event)
        return Stored(list(values), version, {EVERY_FIELD: version}, at)

    def _call(self, step: Step, stored: Stored | None, event: Event, at: At) -> Stored | None:
        handler = step.handler
        before = None if stored is None else step.make(stored.values)
        given = (event,) if step.creates else (before, event)
        row = _guarded(step.name, handler.fold, *given)
        if row is None:
            return None
        if stored is None:
            return Stored(list(row), 1, {}, at)
        if row is before:
            return stored.counted(at)
        version = stored.version + 1
        touched = handler.projection.fields_between(before, row)
        return Stored(list(row), version, stored.field_versions | dict.fromkeys(touched, version), at)

    def _follow(self, step: Step, ranges: Ranges | None, event: Event, at: At) -> Ranges:
        before = ranges.rows if ranges is not None else {}
        key_of, same = step.handler.projection.key_of_row, step.handler.projection.same
        for stored in before.values():
            step.expect_own(stored)
        known = tuple([step.make(stored.values) for stored in before.values()])
        folded = _guarded(step.name, step.handler.fold, known, event)
        rows: dict[Key, Stored] = {}
        for row in sorted(folded, key=key_of):
            key = key_of(row)
            values = list(row)
            kept = before.get(key)
            if kept is not None and same(kept.values, values):
                rows[key] = kept
            else:
                version = 1 if kept is None else kept.version + 1
                rows[key] = Stored(values, version, {}, at)
        removed = (ranges.removed if ranges is not None else set()) | (before.keys() - rows.keys())
        return Ranges(rows, removed - rows.keys())


def _guarded(projection: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call a read model's own function."""
    try:
        return function(*args)
    except Park:
        raise
    except Exception as error:
        raise _failed(projection, error) from error


def _failed(projection: str, error: Exception) -> Park:
    """Return what the failure of a read model's own function means: its entity stops, and nobody else."""
    return Park("fold_failed", f"{projection} can't take the event: {type(error).__name__}: {error}")


def _narrowed(event: Event, values: Values, merged: Merged) -> tuple[Event, Values]:
    """Leave the rejected fields out of what the other read models see."""
    if not merged.conflicts:
        return event, values
    if any(conflict.resolution == "reject" for conflict in merged.conflicts) and hasattr(event, "changed_fields"):
        event = event.model_copy(update={"changed_fields": merged.accepted})
    return event, event.__dict__
