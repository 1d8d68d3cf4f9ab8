"""The schema files are what their names say, or are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from sitelog.schemas import SchemaFileError, load, newest

FIELDS: list[Any] = [{"name": "site_id", "type": "string"}]
RIGHT: dict[str, Any] = {
    "type": "record",
    "name": "SiteMoved",
    "namespace": "sitelog.events",
    "doc": "A site moved.",
    "version": "1.0",
    "topic": "customer-sites-events",
    "entity": "site",
    "key": "site_id",
    "fields": FIELDS,
}
NAME = "site_moved-1.0.avsc"


def write(folder: Path, file_name: str, **changes: Any) -> Path:
    (folder / file_name).write_text(json.dumps(RIGHT | changes))
    return folder


def test_a_file_that_is_what_its_name_says_is_loaded(tmp_path: Path) -> None:
    [schema] = load(write(tmp_path, NAME))
    assert (schema.event_type, schema.record, schema.version) == ("site_moved", "SiteMoved", "1.0")
    assert (schema.topic, schema.entity, schema.key) == ("customer-sites-events", "site", "site_id")
    assert json.loads(schema.text) == schema.schema == RIGHT


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("SiteMoved-1.0.avsc", {}, "expected a name like site_created-1.0.avsc"),
    ("site_moved.avsc", {}, "expected a name like"),
    ("site_moved-1.avsc", {}, "expected a name like"),
    ("site_moved-01.0.avsc", {}, "expected a name like"),
    (NAME, {"name": "SiteLeft"}, "name: expected 'SiteMoved', got 'SiteLeft'"),
    (NAME, {"version": "1.1"}, "version: expected '1.0', got '1.1'"),
    (NAME, {"type": "enum"}, "type: expected 'record', got 'enum'"),
    (NAME, {"namespace": "events"}, "namespace: expected 'sitelog.events', got 'events'"),
    (NAME, {"topic": None}, "topic: expected text, got None"),
    (NAME, {"doc": ""}, "doc: expected text, got ''"),
    (NAME, {"key": "id"}, "key: expected one of the fields, got 'id'"),
    (NAME, {"fields": None}, "fields: expected a list, got None"),
]


@pytest.mark.parametrize(("name", "changes", "message"), WRONG)
def test_a_file_that_is_not_what_its_name_says_is_refused(
    tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SchemaFileError) as refused:
        load(write(tmp_path, name, **changes))
    assert str(refused.value).startswith(f"{name}: ")
    assert message in str(refused.value)


@pytest.mark.parametrize("text", ["{", "[]", "7"])
def test_a_file_without_a_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(SchemaFileError, match=r"site_moved-1\.0\.avsc: expected a JSON object"):
        load(tmp_path)


def test_the_newest_version_is_the_highest_number_and_not_the_last_word(tmp_path: Path) -> None:
    for version in ("1.9", "1.10", "1.2"):
        write(tmp_path, f"site_moved-{version}.avsc", version=version)
    schemas = load(tmp_path)
    assert [schema.version for schema in schemas] == ["1.2", "1.9", "1.10"]
    assert newest(schemas)["site_moved"].version == "1.10"
    assert newest(schemas[::-1])["site_moved"].version == "1.10"
