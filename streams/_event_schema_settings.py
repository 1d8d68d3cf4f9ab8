"""The configuration's `event_schemas`: what the guide says of events, held against the Avro schemas that decide."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from sitelog.schemas import load
from sitelog.streams._section import Problem, Section, Text, nearest, raise_if_any


class EventSchemaSettings(Section):
    """One event's version, and optionally the guide's JSON schema of it."""

    # Checked only: it must have been published. What is written is the newest version, whichever is named here.
    version: Text
    # Only held against the Avro schema: a field it names must exist. It validates no event.
    json_schema: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


def _known(chosen: dict[str, EventSchemaSettings]) -> dict[str, EventSchemaSettings]:
    """Raise for each event, version and field that no file in schemas/avro has."""
    problems: list[Problem] = []
    published = load()
    for event_type, setting in chosen.items():
        versions = {schema.version: schema for schema in published if schema.event_type == event_type}
        if not versions:
            names = sorted({schema.event_type for schema in published})
            problems.append(((event_type,), f"expected an event, got no such one{nearest(event_type, names)}"))
        elif setting.version not in versions:
            problems.append(((event_type, "version"), f"expected {' or '.join(versions)}, got '{setting.version}'"))
        elif setting.json_schema is not None:
            record = versions[setting.version].schema
            problems.extend(_missing_fields(setting.json_schema, record, (event_type, "schema")))
    raise_if_any(problems)
    return chosen


def _missing_fields(
    json_schema: Mapping[str, Any], record: Mapping[str, Any], path: tuple[str | int, ...]
) -> Iterable[Problem]:
    """Yield what the JSON schema names and the Avro record hasn't, to any depth."""
    fields = {field["name"]: field["type"] for field in record["fields"]}
    properties = json_schema.get("properties", {})
    required = json_schema.get("required", [])
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        yield path, "expected a JSON schema with properties as a mapping and required as a list, got another form"
        return
    for name, wanted in properties.items():
        if name not in fields:
            yield (
                (*path, "properties", name),
                f"expected a field of the Avro record {record['name']}, got {name}{nearest(name, fields)}",
            )
            continue
        inner = _record_in(fields[name])
        if inner is not None and isinstance(wanted, Mapping):
            yield from _missing_fields(wanted, inner, (*path, "properties", name))
    for index, name in enumerate(required):
        if name not in fields:
            yield (
                (*path, "required", index),
                f"expected a field of the Avro record {record['name']}, got {name}{nearest(str(name), fields)}",
            )


def _record_in(avro_type: Any) -> Mapping[str, Any] | None:
    """Return the record that a field holds, itself or as one branch of a union."""
    branches = avro_type if isinstance(avro_type, list) else [avro_type]
    for branch in branches:
        if isinstance(branch, Mapping) and branch.get("type") == "record":
            return branch
    return None


EventSchemas = Annotated[dict[str, EventSchemaSettings], AfterValidator(_known)]
