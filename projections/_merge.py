"""How a partial update meets a row that has changed since its producer read it: field by field."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import orjson

from sitelog.projections._json import same
from sitelog.projections._projection import Field
from sitelog.projections._stored import Stored

Policy = Literal["last_write_wins", "reject"]
Reason = Literal["old_value", "version", "deleted", "exists"]

Changed = tuple[Sequence[str], Any | None, Any | None]
"""A `Change`, as a plain tuple."""

EVERY_FIELD: Final = "*"
"""In field_versions: the version that holds for the fields not named, set when a deleted row is created again."""


class Conflict(NamedTuple):
    """One field of one event that met a value its producer didn't know of, and what was decided."""

    projection: str
    field: str
    reason: Reason
    expected: str | None
    found: str | None
    resolution: Policy


# One of it for every update: no dataclass, because the compiler can't see into a dataclass's __init__.


class Merged:
    """What is left of a change: the columns to set, by index, the fields accepted, and the conflicts found."""

    __slots__ = ("accepted", "conflicts", "values")

    def __init__(self, values: dict[int, Any], accepted: Sequence[str], conflicts: tuple[Conflict, ...]) -> None:
        self.values = values
        self.accepted = accepted
        self.conflicts = conflicts


class Place:
    """Where a field's value is: in one column as it is, or in several as a tuple."""

    def __init__(self, field: Field, columns: Mapping[str, int], json_columns: Collection[str]) -> None:
        self.indexes = [columns[column] for column in field.columns]
        self._json = [column in json_columns for column in field.columns]
        self.index = self.indexes[0]
        self.single = len(self.indexes) == 1
        self._name = field.attribute
        self._of: Callable[[Any], tuple[Any, ...]] = field.of

    def value_in(self, source: Any | None) -> Any:
        """Return what an event's values say of the field; nothing at all means null."""
        if source is None:
            return None if self.single else (None,) * len(self.indexes)
        if self._name is not None:
            return getattr(source, self._name)
        values = self._of(source)
        return values[0] if self.single else values

    def value_of(self, stored: Stored) -> Any:
        """Return what the row has."""
        return stored.value(self.index) if self.single else tuple([stored.value(index) for index in self.indexes])

    def same(self, one: Any, other: Any) -> bool:
        """Tell whether two of these values are the same; a row's JSON is spelled as Postgres spells it."""
        if self.single:
            return same(one, other, is_json=self._json[0])
        parts = zip(one, other, self._json, strict=True)
        return all(same(a, b, is_json=is_json) for a, b, is_json in parts)

    def put(self, value: Any, into: dict[int, Any]) -> None:
        """Set the field's columns to what `value_in` has returned."""
        if self.single:
            into[self.index] = value
        else:
            into.update(zip(self.indexes, value, strict=True))


class Merger:
    """Merges changes into rows of one read model, whose columns have these indexes; some of them hold JSON."""

    def __init__(
        self, projection: str, columns: Mapping[str, int], json_columns: Collection[str], fields: Mapping[str, Field]
    ) -> None:
        self._projection = projection
        self._places = {name: Place(field, columns, json_columns) for name, field in fields.items()}

    def merge(
        self, stored: Stored, changed: Changed, expected_version: int | None, policy: Policy, *, deleted: bool
    ) -> Merged:
        """Accept the fields that nobody else has changed, and decide on the others by `policy`.

        A field conflicts when the producer's old value isn't the row's, or when the field changed after the
        version that the producer expected. A field that already has the new value doesn't conflict. On a deleted
        row every field conflicts and is rejected whatever the policy.
        """
        names, old, wanted = changed
        # Most changes come without a word on what they expect: nothing to look at then.
        careful = deleted or old is not None or expected_version is not None
        values: dict[int, Any] = {}
        conflicts: list[Conflict] = []
        rejected: list[str] = []
        for name in names:
            place = self._places[name]
            new = place.value_in(wanted)
            if careful:
                found = place.value_of(stored)
                since = _changed_since(stored, name, expected_version)
                reason = "deleted" if deleted else _reason(place, found, new, old, changed_since=since)
                if reason is not None:
                    resolution: Policy = "reject" if deleted else policy
                    expected, seen = _described(place, stored, found, old, expected_version, reason)
                    conflicts.append(Conflict(self._projection, name, reason, expected, seen, resolution))
                    if resolution == "reject":
                        rejected.append(name)
                        continue
            place.put(new, values)
        if rejected:
            names = tuple([name for name in names if name not in rejected])
        return Merged(values, names, tuple(conflicts))


def _changed_since(stored: Stored, name: str, expected_version: int | None) -> bool:
    """Tell whether a field changed after the version that the producer expected, or that version is yet to come."""
    if expected_version is None or expected_version == stored.version:
        return False
    versions = stored.field_versions
    changed_at = versions.get(name, versions.get(EVERY_FIELD, 1))  # its first version writes all of a row
    return changed_at > expected_version or expected_version > stored.version


def _reason(place: Place, found: Any, new: Any, old: Any | None, *, changed_since: bool) -> Reason | None:
    if (old is None and not changed_since) or place.same(found, new):
        return None
    if old is not None and not place.same(found, place.value_in(old)):
        return "old_value"
    return "version" if changed_since else None


def _described(  # noqa: PLR0917 - all of it is what happened
    place: Place, stored: Stored, found: Any, old: Any | None, expected_version: int | None, reason: Reason
) -> tuple[str | None, str | None]:
    """Return what the producer expected and what was found, as text."""
    if reason == "deleted":
        return None, "deleted"
    if reason == "version":
        return str(expected_version), str(stored.version)
    return _text(place, place.value_in(old)), _text(place, found)


def _text(place: Place, value: Any) -> str | None:
    if not place.single:
        return orjson.dumps(value, default=str).decode()
    return None if value is None else str(value)
