"""What an event says, in words: made from its own fields, so that a new event needs nothing here."""

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any, Final

from sitelog.cli._figures import moment
from sitelog.streams._event import Event, Record

VALUE_CHARACTERS_MAX: Final = 60
_ENVELOPE: Final = frozenset(Event.model_fields)
_OF_CHANGES: Final = frozenset({"old_values", "new_values"})


def words(event: Event) -> str:
    """Return what happened in one line, without the envelope: changed fields as `field: old → new`, others as they are.

    Long values are cut; a field that is null isn't mentioned.
    """
    fields = [name for name in type(event).model_fields if name not in _ENVELOPE and name != event.key_field]
    parts: list[str] = []
    for name in fields:
        value = getattr(event, name)
        if name == "changed_fields":
            parts += _changes(event)
        elif isinstance(value, Record) and name not in _OF_CHANGES:
            parts += (_told(inner, getattr(value, inner)) for inner in type(value).model_fields)
        elif name not in _OF_CHANGES:
            parts.append(_told(name, value))
    return ", ".join(part for part in parts if part)


def _changes(event: Any) -> Iterator[str]:
    for name in event.changed_fields:
        new = _value(None if event.new_values is None else getattr(event.new_values, name))
        if event.old_values is None:
            yield f"{label(name)}: {new}"
        else:
            yield f"{label(name)}: {_value(getattr(event.old_values, name))} → {new}"


def _told(name: str, value: Any) -> str:
    return "" if value is None else f"{label(name)} {_value(value)}"


def label(name: str) -> str:
    """Return a field's name as a person says it: `territory_id` is the territory."""
    return name.removesuffix("_id").replace("_", " ")


def _value(value: Any) -> str:
    if value is None:
        return "nothing"
    text = composed(value)
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[: VALUE_CHARACTERS_MAX - 1]}…"


def composed(value: Any) -> str:
    """Return a value on one line, however much is in it."""
    if isinstance(value, Record):
        parts = (getattr(value, name) for name in type(value).model_fields)
        return " ".join(composed(part) for part in parts if part is not None)
    if isinstance(value, dict):
        return " ".join(f"{key}={composed(part)}" for key, part in value.items())
    if isinstance(value, tuple | list):
        return "; ".join(composed(part) for part in value)
    if isinstance(value, datetime):
        return moment(value)
    return value.isoformat() if isinstance(value, date) else str(value)
