"""How a partial update meets a row that has changed since its producer read it: field by field."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import orjson

from sitelog.projections._json import same_json
from sitelog.projections._projection import Field

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


# One of each for every update: no dataclasses, because the compiler can't see into a dataclass's __init__.


class Target:
    """The row that a change meets: its columns' values, its version, and the versions of its fields."""

    __slots__ = ("columns", "deleted", "field_versions", "projection", "row", "version")

    def __init__(
        self,
        projection: str,
        row: tuple[Any, ...],
        columns: dict[str, int],
        version: int,
        field_versions: dict[str, int],
        *,
        deleted: bool,
    ) -> None:
        self.projection = projection
        self.row = row
        self.columns = columns
        self.version = version
        self.field_versions = field_versions
        self.deleted = deleted


class Merged:
    """What is left of a change: the columns to set, the fields accepted, and the conflicts found."""

    __slots__ = ("accepted", "conflicts", "values")

    def __init__(self, values: dict[int, Any], accepted: tuple[str, ...], conflicts: tuple[Conflict, ...]) -> None:
        self.values = values
        self.accepted = accepted
        self.conflicts = conflicts


def merge(
    target: Target, fields: Mapping[str, Field], changed: Changed, expected_version: int | None, policy: Policy
) -> Merged:
    """Accept the fields that nobody else has changed, and decide on the others by `policy`.

    A field conflicts when the producer's old value isn't the row's, or when the field changed after the
    version that the producer expected. A field that already has the new value doesn't conflict. On a deleted
    row every field conflicts and is rejected whatever the policy.
    """
    values: dict[int, Any] = {}
    accepted: list[str] = []
    conflicts: list[Conflict] = []
    names, old, wanted = changed
    # Most changes come without a word on what they expect: nothing to look at then.
    careful = target.deleted or old is not None or expected_version is not None
    for name in names:
        field = fields[name]
        if not careful and field.attribute is not None:
            accepted.append(name)
            values[target.columns[field.columns[0]]] = None if wanted is None else getattr(wanted, field.attribute)
            continue
        new = _values(field, wanted)
        reason: Reason | None = None
        if careful:
            reason = _reason(target, field, new, old, changed_since=_changed_since(target, name, expected_version))
        resolution: Policy = "reject" if reason == "deleted" else policy
        if reason is not None:
            expected, found = _described(target, field, old, expected_version, reason)
            conflicts.append(Conflict(target.projection, name, reason, expected, found, resolution))
        if reason is None or resolution == "last_write_wins":
            accepted.append(name)
            for index, column in enumerate(field.columns):
                values[target.columns[column]] = new[index]
    return Merged(values, tuple(accepted), tuple(conflicts))


def _values(field: Field, source: Any | None) -> tuple[Any, ...]:
    """Return one value per column; nothing at all means null."""
    if source is None:
        return (None,) * len(field.columns)
    return field.of(source) if field.attribute is None else (getattr(source, field.attribute),)


def _changed_since(target: Target, name: str, expected_version: int | None) -> bool:
    """Tell whether a field changed after the version that the producer expected, or that version is yet to come."""
    if expected_version is None or expected_version == target.version:
        return False
    versions = target.field_versions
    changed_at = versions.get(name, versions.get(EVERY_FIELD, 1))  # its first version writes all of a row
    return changed_at > expected_version or expected_version > target.version


def _reason(
    target: Target, field: Field, new: tuple[Any, ...], old: Any | None, *, changed_since: bool
) -> Reason | None:
    if target.deleted:
        return "deleted"
    if old is None and not changed_since:
        return None
    found = _found(target, field)
    if _same(found, new):
        return None
    if old is not None and not _same(found, _values(field, old)):
        return "old_value"
    return "version" if changed_since else None


def _described(
    target: Target, field: Field, old: Any | None, expected_version: int | None, reason: Reason
) -> tuple[str | None, str | None]:
    """Return what the producer expected and what was found, as text."""
    if reason == "deleted":
        return None, "deleted"
    if reason == "version":
        return str(expected_version), str(target.version)
    return _text(field.of(old)), _text(_found(target, field))


def _found(target: Target, field: Field) -> tuple[Any, ...]:
    row, columns = target.row, target.columns
    if len(field.columns) == 1:
        return (row[columns[field.columns[0]]],)
    return tuple(row[columns[column]] for column in field.columns)


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return one == other or (len(one) == 1 and same_json(one[0], other[0]))


def _text(values: tuple[Any, ...]) -> str | None:
    plain = values[0] if len(values) == 1 else orjson.dumps(values, default=str).decode()
    return None if plain is None else str(plain)
