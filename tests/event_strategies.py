"""Hypothesis strategies for every event, drawn from the schema files themselves."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from sitelog.schemas import load, newest
from sitelog.streams._event import Event
from sitelog.streams.events import EVENT_TYPES

TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=80)
ID = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=100)
BY_RULE = {
    "id": ID,
    "uuid": st.uuids().map(str),
    "time_of_day": st.from_regex(r"\A(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)\Z"),
    "geojson": st.sampled_from(['{"type":"Point","coordinates":[1,2]}', ' {"type": "Ü", "x": null}']),
    "latitude": st.floats(-90, 90),
    "longitude": st.floats(-180, 180),
    "sane": st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001
}
BY_TYPE = {"string": TEXT, "double": st.floats(allow_nan=False, allow_infinity=False)}
COUNTS = {"int": st.integers(0, 2**31 - 1), "long": st.integers(0, 2**63 - 1)}


@st.composite
def events(draw: st.DrawFn, event_type: str | None = None) -> Event:
    """An event of any type, or of this one."""
    schemas = newest(load())
    schema = schemas[event_type or draw(st.sampled_from(sorted(schemas)))]
    named: dict[str, Any] = {}
    return EVENT_TYPES[schema.event_type].model_validate(draw(record(schema.schema, named)))


@st.composite
def record(draw: st.DrawFn, schema: Mapping[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in schema["fields"]:
        rule = field.get("rule")
        if rule is not None and rule.startswith("not_before "):
            first = values[rule.removeprefix("not_before ")] or date.min
            days = st.dates(min_value=first)
            values[field["name"]] = draw(st.none() | days if isinstance(field["type"], list) else days)
        else:
            values[field["name"]] = draw(value(field["type"], rule, named))
    # The values record comes with old_values, which is declared first.
    rule = next((f["rule"] for f in schema["fields"] if f["name"] == "changed_fields"), None)
    if rule is not None:
        names = [field["name"] for field in named[rule.removeprefix("fields_of ")]["fields"]]
        values["changed_fields"] = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    return values


def value(schema: Any, rule: str | None, named: dict[str, Any]) -> st.SearchStrategy[Any]:
    if isinstance(schema, list):
        return st.none() | value(schema[1], rule, named)
    if isinstance(schema, str) and schema in named:
        return record(named[schema], named)
    if rule == "count":
        return COUNTS[schema]
    if rule in BY_RULE:
        return BY_RULE[rule]
    if isinstance(schema, str):
        return BY_TYPE[schema]
    return composed(schema, named)


def composed(schema: Mapping[str, Any], named: dict[str, Any]) -> st.SearchStrategy[Any]:
    match schema:
        case {"logicalType": "date"}:
            return st.dates()
        case {"logicalType": "decimal", "precision": precision, "scale": scale}:
            digits = 10**precision - 1
            return st.integers(-digits, digits).map(lambda number: Decimal(number).scaleb(-scale))
        case {"type": "enum", "symbols": symbols}:
            return st.sampled_from(symbols)
        case {"type": "array", "items": items}:
            return st.lists(value(items, None, named), max_size=4)
        case {"type": "map", "values": values}:
            return st.dictionaries(TEXT, value(values, None, named), max_size=4)
    named[schema["name"]] = schema
    return record(schema, named)
