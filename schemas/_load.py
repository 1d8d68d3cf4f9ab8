"""Reads the schema files, and refuses one whose name and content disagree."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

NAMESPACE = "sitelog.events"
_FILE_NAME = re.compile(r"(?P<event>[a-z]+(?:_[a-z]+)*)-(?P<version>(?:0|[1-9]\d*)\.(?:0|[1-9]\d*))\.avsc")
_ATTRIBUTES = ("version", "topic", "entity", "key", "doc")


class SchemaFileError(ValueError):
    """A schema file isn't what its name says."""


@dataclass(frozen=True, slots=True)
class EventSchema:
    """One version of one event, as its file says.

    `event_type` is the name that configuration, log and command line use (`site_created`), `record` the
    Avro record's and the Python class's (`SiteCreated`). `text` is the file, word for word.
    """

    event_type: str
    record: str
    version: str
    topic: str
    entity: str
    key: str
    doc: str
    schema: Mapping[str, Any]
    text: str

    @property
    def order(self) -> tuple[int, ...]:
        """The version as numbers: 1.10 comes after 1.9."""
        return tuple(int(part) for part in self.version.split("."))


def load(folder: Traversable | None = None) -> list[EventSchema]:
    """Return every version of every event, by event and then by version.

    Without `folder` they are the published ones. Raises SchemaFileError, naming the file, for one that
    isn't an event schema, or that is called otherwise than its record and version.
    """
    folder = folder or files("sitelog.schemas") / "avro"
    found = [
        _read(entry.name, entry.read_text(encoding="utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".avsc")
    ]
    return sorted(found, key=lambda schema: (schema.event_type, schema.order))


def newest(schemas: list[EventSchema]) -> dict[str, EventSchema]:
    """Return the newest version of each event, by event type, in the order of the names."""
    ordered = sorted(schemas, key=lambda schema: (schema.event_type, schema.order))
    return {schema.event_type: schema for schema in ordered}


def _read(file_name: str, text: str) -> EventSchema:
    """Take a file apart; every refusal says what the file name or the contract expects."""
    named = _FILE_NAME.fullmatch(file_name)
    if named is None:
        raise SchemaFileError(f"{file_name}: expected a name like site_created-1.0.avsc")
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise SchemaFileError(f"{file_name}: expected a JSON object, got {error}") from error
    if not isinstance(schema, dict):
        raise SchemaFileError(f"{file_name}: expected a JSON object, got {type(schema).__name__}")
    record = "".join(word.capitalize() for word in named["event"].split("_"))
    expected = {"type": "record", "name": record, "namespace": NAMESPACE, "version": named["version"]}
    for attribute, value in expected.items():
        if schema.get(attribute) != value:
            raise SchemaFileError(f"{file_name}: {attribute}: expected {value!r}, got {schema.get(attribute)!r}")
    for attribute in _ATTRIBUTES:
        if not isinstance(schema.get(attribute), str) or not schema[attribute]:
            raise SchemaFileError(f"{file_name}: {attribute}: expected text, got {schema.get(attribute)!r}")
    if not isinstance(schema.get("fields"), list):
        raise SchemaFileError(f"{file_name}: fields: expected a list, got {schema.get('fields')!r}")
    if schema["key"] not in {field["name"] for field in schema["fields"]}:
        raise SchemaFileError(f"{file_name}: key: expected one of the fields, got {schema['key']!r}")
    return EventSchema(
        event_type=named["event"],
        record=record,
        schema=schema,
        text=text,
        **{attribute: schema[attribute] for attribute in _ATTRIBUTES},
    )
