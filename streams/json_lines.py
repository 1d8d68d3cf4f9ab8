"""Events as lines of JSON: `{"type": "site_created", "site_id": "site-1", "site_data": {"name": "Harbour View"}}`."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any, Final

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sitelog.streams._event import Event
from sitelog.streams.errors import SitelogError
from sitelog.streams.events import EVENT_TYPES

_SHOWN_MAX: Final = 60
"""Characters of a wrong value that are shown."""
_PROBLEMS_MAX: Final = 10
"""Problems of one line that are listed; a line of rubbish has thousands."""

_EXPECTED: Final = {
    "bool_type": "true or false",
    "date_from_datetime_parsing": "a date such as 2025-07-24",
    "date_parsing": "a date such as 2025-07-24",
    "date_type": "a date such as 2025-07-24",
    "datetime_from_date_parsing": "a time with its offset, such as 2025-07-24T12:00:00Z",
    "datetime_parsing": "a time with its offset, such as 2025-07-24T12:00:00Z",
    "datetime_type": "a time with its offset, such as 2025-07-24T12:00:00Z",
    "decimal_max_digits": "at most {max_digits} digits",
    "decimal_max_places": "at most {decimal_places} decimals",
    "decimal_parsing": "a decimal number",
    "decimal_type": "a decimal number",
    "decimal_whole_digits": "at most {whole_digits} digits before the point",
    "dict_type": "an object",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than_equal": "at least {ge}",
    "int_type": "a whole number",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "model_type": "an object",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} character",
    "string_type": "text",
    "timezone_aware": "a time with its offset, such as 2025-07-24T12:00:00Z",
    "tuple_type": "a list",
}


class InvalidLine(SitelogError):  # noqa: N818 - it reads as the sentence it is
    """The line is no event."""


def event_of(line: bytes) -> Event:
    """Return the event that a line of JSON says; without event_id and event_timestamp it gets new ones.

    Raises InvalidLine with every problem of the line, each as `field: expected …, got …`.
    """
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InvalidLine(f"expected JSON, got {error}") from error
    if not isinstance(fields, dict):
        raise InvalidLine(f"expected a JSON object, got {_shown(fields)}")
    event = _event_type(fields.pop("type", None))
    try:
        return event.model_validate(fields)
    except ValidationError as error:
        found = error.errors(include_url=False)
        problems = [_sentence(one, event) for one in found[:_PROBLEMS_MAX]]
        more = [f"and {len(found) - _PROBLEMS_MAX} more"] if len(found) > _PROBLEMS_MAX else []
        raise InvalidLine("; ".join(problems + more)) from error


def line_of(event: Event) -> str:
    """Return the event as one line of JSON, without the line's end. What is null is left out."""
    fields = event.model_dump(mode="json", exclude_none=True)
    return orjson.dumps({"type": event.event_type, **fields}).decode()


def nearest_event(name: str) -> str:
    """Say which event was probably meant, or list them when none is near."""
    return _nearest(name, EVENT_TYPES)


def _event_type(name: Any) -> type[Event]:
    event = EVENT_TYPES.get(name) if isinstance(name, str) else None
    if event is None:
        given = "none" if name is None else _shown(name)
        raise InvalidLine(
            f"type: expected an event's name, got {given}{nearest_event(name if isinstance(name, str) else '')}"
        )
    return event


def _sentence(error: ErrorDetails, event: type[Event]) -> str:
    return f"{'.'.join(str(step) for step in error['loc'])}: {_problem(error, event)}"


def _problem(error: ErrorDetails, event: type[Event]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return "expected a value, got none"
    if kind == "extra_forbidden":
        known = _fields_at(event, error["loc"][:-1])
        return f"expected a field of the event{_nearest(str(error['loc'][-1]), known)}"
    expected = _EXPECTED.get(kind, "").format_map(context)
    if kind == "value_error":  # one of our own rules
        expected = str(context["error"]).removeprefix("expected ")
    return f"expected {expected or error['msg']}, got {_shown(error['input'])}"


def _fields_at(event: type[BaseModel], path: Iterable[int | str]) -> list[str]:
    """Return the names of the fields that a record within the event has."""
    record = event
    for step in path:
        field = record.model_fields.get(str(step))
        if field is not None:
            record = next(_records_in(field.annotation), record)
    return list(record.model_fields)


def _records_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _records_in(inner)


def _nearest(given: str, known: Iterable[str]) -> str:
    names = list(known)
    near = get_close_matches(given.lower(), names, n=1)
    return f": did you mean {near[0]}?" if near else f": known are {', '.join(names)}"


def _shown(value: Any) -> str:
    try:
        text = orjson.dumps(value, default=str).decode()
    except orjson.JSONEncodeError:
        # It reads what is nested deeper than it writes.
        return f"a {type(value).__name__} that is nested too deeply to be shown"
    return f"{text[:_SHOWN_MAX]}…" if len(text) > _SHOWN_MAX else text
