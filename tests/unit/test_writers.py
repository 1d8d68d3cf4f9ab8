"""Values of older versions and of other teams' schemas become events of the newest version."""

import json
import tracemalloc
from dataclasses import replace
from io import BytesIO
from time import monotonic
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from sitelog.schemas import EventSchema, load, newest
from sitelog.streams._writer import fingerprint_of, header
from sitelog.streams.codec import Codec, Undecodable
from sitelog.streams.errors import Retry
from sitelog.streams.examples import example
from tests.registries import FilledRegistry

NEWEST = newest(load())["site_deleted"]
EVENT = example("site_deleted", reason="demolished")


def changed(*, drop: tuple[str, ...] = (), add: tuple[dict[str, Any], ...] = (), **changes: Any) -> dict[str, Any]:
    """The schema of site_deleted with some fields less and some more."""
    fields = [field for field in NEWEST.schema["fields"] if field["name"] not in drop]
    return {**NEWEST.schema, "fields": [*fields, *add], **changes}


def written(schema: dict[str, Any], **values: Any) -> bytes:
    stream = BytesIO()
    schemaless_writer(stream, parse_schema(schema), EVENT.model_dump() | values)
    return stream.getvalue()


def older(schema: dict[str, Any]) -> EventSchema:
    return replace(NEWEST, version=schema["version"], schema=schema, text=json.dumps(schema))


WHY = {"name": "why", "type": ["null", "string"], "default": None}
OLD = changed(drop=("reason",), add=(WHY,), version="0.9")

FOREIGN = changed(add=({"name": "more", "type": "int"},))
FOREIGN_CODEC = Codec()
FOREIGN_HEADER = header(FOREIGN_CODEC.learn(json.dumps(FOREIGN)))


def test_an_older_version_is_resolved_to_the_newest() -> None:
    codec = Codec(schemas=[*load(), older(OLD)])
    value = header(fingerprint_of(OLD)) + written(OLD, why="sold")
    decoded = codec.decode(value)
    assert decoded.event == example("site_deleted", reason=None)
    assert codec.decode_body(decoded.fingerprint, decoded.body) == decoded.event
    assert (fingerprint_of(OLD), "site_deleted", "0.9", json.dumps(OLD)) in codec.schemas()


def test_an_upcaster_does_what_resolution_can_not() -> None:
    def why_to_reason(old: Any, new: dict[str, Any]) -> dict[str, Any]:
        return {**new, "reason": old["why"]}

    codec = Codec(schemas=[*load(), older(OLD)], upcasters={("site_deleted", "0.9"): why_to_reason})
    value = header(fingerprint_of(OLD)) + written(OLD, why="sold")
    assert codec.decode(value).event == example("site_deleted", reason="sold")


def test_what_an_upcaster_makes_is_checked() -> None:
    codec = Codec(
        schemas=[*load(), older(OLD)],
        upcasters={("site_deleted", "0.9"): lambda _, new: {**new, "reason": "a\0b"}},
    )
    with pytest.raises(Undecodable, match=r"reason: .*without the NUL") as refused:
        codec.decode(header(fingerprint_of(OLD)) + written(OLD))
    assert refused.value.reason == "invalid_value"


def test_another_team_s_schema_with_more_fields_and_another_namespace_is_read() -> None:
    extra = {"name": "ticket", "type": {"type": "array", "items": "string"}}
    foreign = changed(add=(extra,), namespace="com.example")
    codec = Codec()
    fingerprint = codec.learn(json.dumps(foreign))
    decoded = codec.decode(header(fingerprint) + written(foreign, ticket=["a", "b"]))
    assert decoded.event == EVENT
    assert decoded.fingerprint == fingerprint


def with_milliseconds() -> list[dict[str, Any]]:
    fields = [dict(field) for field in NEWEST.schema["fields"]]
    fields[1]["type"] = {"type": "long", "logicalType": "timestamp-millis"}
    return fields


def test_another_team_s_milliseconds_become_a_time() -> None:
    millis = {"name": "event_timestamp", "type": {"type": "long", "logicalType": "timestamp-millis"}}
    extra = {"name": "more", "type": "int"}
    foreign = changed(drop=("event_timestamp",), add=(millis, extra))
    codec = Codec()
    value = header(codec.learn(json.dumps(foreign))) + written(foreign, more=1)
    assert codec.decode(value).event == EVENT


def test_milliseconds_under_another_team_s_namespace_become_a_time() -> None:
    foreign = changed(namespace="com.example", fields=with_milliseconds())
    codec = Codec()
    value = header(codec.learn(json.dumps(foreign))) + written(foreign)
    assert codec.decode(value).event == EVENT


def test_logical_types_that_the_fingerprint_hides_are_refused() -> None:
    foreign = json.dumps(changed(fields=with_milliseconds()))
    assert fingerprint_of(json.loads(foreign)) == fingerprint_of(NEWEST.schema)
    with pytest.raises(Undecodable, match=r"expected the logical types of site_deleted 1\.0"):
        Codec().learn(foreign)


def respelt(schema: Any) -> Any:
    """The same schema as other libraries spell it: full names, no namespace, and attributes of their own."""
    if isinstance(schema, list):
        return [respelt(branch) for branch in schema]
    if isinstance(schema, str):
        return {"type": "string", "avro.java.string": "String"} if schema == "string" else _full_name(schema)
    spelt = {key: value for key, value in schema.items() if key not in {"namespace", "doc", "rule", "version"}}
    for inner in ("items", "values"):
        if inner in schema:
            spelt[inner] = respelt(schema[inner])
    if "name" in schema:
        spelt["name"] = _full_name(schema["name"])
    if "fields" in schema:
        spelt["fields"] = [{"name": field["name"], "type": respelt(field["type"])} for field in schema["fields"]]
    return spelt


def _full_name(name: str) -> str:
    return f"sitelog.events.{name}" if name[0].isupper() else name


@pytest.mark.parametrize("schema", load(), ids=lambda schema: f"{schema.event_type}-{schema.version}")
def test_our_schema_is_known_however_another_library_spells_it(schema: EventSchema) -> None:
    codec = Codec()
    before = codec.schemas()
    assert codec.learn(json.dumps(respelt(schema.schema))) == fingerprint_of(schema.schema)
    assert codec.schemas() == before


def test_learning_a_schema_again_changes_nothing() -> None:
    codec = Codec()
    before = codec.schemas()
    assert codec.learn(NEWEST.text) == fingerprint_of(NEWEST.schema)
    assert codec.schemas() == before


def test_a_foreign_value_is_checked_as_strictly_as_ours() -> None:
    foreign = changed(add=({"name": "more", "type": "int"},))
    codec = Codec()
    frame = header(codec.learn(json.dumps(foreign)))

    def reason(body: bytes) -> str:
        with pytest.raises(Undecodable) as refused:
            codec.decode(frame + body)
        return refused.value.reason

    value = written(foreign, more=1)
    assert reason(written(foreign, more=1, site_id="")) == "invalid_value"
    assert reason(written(foreign, more=1, event_id="7")) == "invalid_value"
    assert reason(value + b"\0") == "wrong_bytes"
    assert reason(value.replace(b"site-1", b"site-\xff")) == "wrong_bytes"
    for length in range(len(value)):
        assert reason(value[:length]) == "truncated", length
    assert codec.decode(frame + written(foreign, more=1, event_id=EVENT.event_id.upper())).event == EVENT


SKIPPED: list[Any] = [
    "boolean",
    "float",
    "double",
    {"type": "fixed", "name": "Three", "size": 3},
    {"type": "record", "name": "Two", "fields": [{"name": "a", "type": "null"}, {"name": "b", "type": "boolean"}]},
    "string",
]


@pytest.mark.parametrize("items", SKIPPED, ids=lambda items: items if isinstance(items, str) else items["name"])
def test_a_corrupt_count_of_items_of_no_use_to_us_costs_no_time(items: Any) -> None:
    foreign = changed(add=({"name": "more", "type": {"type": "array", "items": items}},))
    codec = Codec()
    value = header(codec.learn(json.dumps(foreign))) + written(dict(NEWEST.schema))
    assert codec.decode(value + b"\0").event == EVENT
    started = monotonic()
    with pytest.raises(Undecodable) as refused:
        codec.decode(value + b"\x80\x80\x80\x10")  # 2**24; 2**62 would end in no lifetime
    assert refused.value.reason == "truncated"
    assert monotonic() - started < 1


@pytest.mark.parametrize("length", [b"\1", b"\x08"])
def test_a_text_of_no_use_to_us_that_is_not_there_is_truncated(length: bytes) -> None:
    foreign = changed(add=({"name": "more", "type": "string"},))
    codec = Codec()
    with pytest.raises(Undecodable) as refused:
        codec.decode(header(codec.learn(json.dumps(foreign))) + written(dict(NEWEST.schema)) + length + b"abc")
    assert refused.value.reason == "truncated"


def refused_or_valid(body: bytes) -> None:
    reason, event = None, None
    try:
        event = FOREIGN_CODEC.decode(FOREIGN_HEADER + body).event
    except Undecodable as refused:
        reason = refused.reason
    if event is None:
        assert reason in {"wrong_bytes", "truncated", "invalid_value"}
    else:
        assert type(event).model_validate(event.model_dump()) == event


@settings(deadline=None)
@given(body=st.binary(max_size=300))
def test_random_bytes_of_a_foreign_schema_are_refused_or_valid(body: bytes) -> None:
    refused_or_valid(body)


HUGE = b"\xfe" + b"\xff" * 8 + b"\1"


@settings(deadline=None)
@given(data=st.data())
def test_changed_bytes_of_a_foreign_schema_are_refused_or_valid_and_allocate_nothing(data: st.DataObject) -> None:
    body = bytearray(written(FOREIGN, more=1))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at : at + data.draw(st.integers(0, 2))] = data.draw(
        st.sampled_from([HUGE, b"\xff" * 9 + b"\1", b"\1", b"\xff"])
    )
    tracemalloc.start()
    try:
        refused_or_valid(bytes(body))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


RECURSIVE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"], "default": None}]}
EMPTY = {"type": "record", "name": "Nothing", "fields": []}
FIXED = {"type": "fixed", "name": "Fixed", "size": 0}
NO_BYTE = "expected records and fixed types of a byte at least, got sitelog.events.Nothing"
NOTHINGS = {"name": "m", "type": {"type": "array", "items": "Nothing"}}
DOUBLING: Any = EMPTY
for level in range(20):
    twice = [{"name": "x", "type": DOUBLING}, {"name": "y", "type": DOUBLING["name"]}]
    DOUBLING = {"type": "record", "name": f"Twice{level}", "fields": twice}
DEEP: Any = "string"
for _ in range(40):
    DEEP = {"type": "array", "items": DEEP}
UNREADABLE: list[tuple[str, str, str]] = [
    ("no JSON", "{", "expected an Avro schema"),
    ("no Avro", '{"type": "recrod"}', "expected an Avro schema"),
    ("a primitive", '"string"', "expected a record called as one of our events, got string"),
    ("a union", '["null", "string"]', "expected a record called as one of our events"),
    ("another record", json.dumps({**NEWEST.schema, "name": "OrderPlaced"}), "got OrderPlaced"),
    ("a recursive record", json.dumps(changed(add=({"name": "n", "type": RECURSIVE},))), "no record within itself"),
    (
        "an array of null",
        json.dumps(changed(add=({"name": "n", "type": {"type": "array", "items": "null"}},))),
        "expected array items of a byte at least, got null",
    ),
    (
        "an array of nothing",
        json.dumps(changed(add=({"name": "n", "type": {"type": "array", "items": EMPTY}},))),
        NO_BYTE,
    ),
    ("an array of nothing by its name", json.dumps(changed(add=({"name": "n", "type": EMPTY}, NOTHINGS))), NO_BYTE),
    ("a record of nothings", json.dumps(changed(add=({"name": "n", "type": DOUBLING},))), NO_BYTE),
    (
        "a fixed type of no byte",
        json.dumps(changed(add=({"name": "n", "type": FIXED},))),
        "at least, got sitelog.events.F",
    ),
    (
        "one that says it is parsed",
        json.dumps(changed(add=(NOTHINGS,), __fastavro_parsed=True, __named_schemas={"Nothing": EMPTY})),
        "UnknownType('sitelog.events.Nothing')",
    ),
]


@pytest.mark.parametrize(("schema", "message"), [case[1:] for case in UNREADABLE], ids=[c[0] for c in UNREADABLE])
def test_a_schema_that_is_not_of_our_events_or_not_safe_is_refused(schema: str, message: str) -> None:
    with pytest.raises(Undecodable) as refused:
        Codec().learn(schema)
    assert refused.value.reason == "unknown_schema"
    assert message in str(refused.value)


def test_a_schema_that_does_not_resolve_to_ours_is_unknown() -> None:
    foreign = changed(drop=("site_id",))
    codec = Codec()
    frame = header(codec.learn(json.dumps(foreign)))
    with pytest.raises(Undecodable, match="expected a schema that resolves to ours") as refused:
        codec.decode(frame + written(foreign))
    assert refused.value.reason == "unknown_schema"


async def test_a_schema_id_is_looked_up_in_the_registry_once() -> None:
    foreign = changed(add=({"name": "more", "type": "int"},))
    registry = FilledRegistry({7: json.dumps(foreign)})
    codec = Codec(registry)
    value = b"\0\0\0\0\7" + written(foreign, more=1)
    with pytest.raises(Retry, match=r"schema id 7: expected prepare\(\) to be awaited"):
        codec.decode(value)
    assert codec.missing_schemas([value, None, b"", b"\0", b"\xc3\x01", value]) == {7}
    await codec.prepare([value])
    for _ in range(3):
        assert codec.decode(value).event == EVENT
    assert registry.lookups == 1
    assert codec.missing_schemas([value]) == set()
    await codec.prepare([value])
    assert registry.asks == 1


async def test_a_schema_id_that_the_registry_has_not_is_an_unknown_schema() -> None:
    codec = Codec(FilledRegistry())
    value = b"\0\0\0\0\7" + written(NEWEST.schema)
    await codec.prepare([value])
    with pytest.raises(Undecodable, match="schema id 7: expected it in the registry, got none") as refused:
        codec.decode(value)
    assert refused.value.reason == "unknown_schema"


async def test_our_own_schema_from_a_registry_is_read_as_ours() -> None:
    codec = Codec(FilledRegistry({7: NEWEST.text}))
    value = b"\0\0\0\0\7" + written(dict(NEWEST.schema))
    await codec.prepare([value])
    decoded = codec.decode(value)
    assert decoded == Codec().decode(header(fingerprint_of(NEWEST.schema)) + decoded.body)


def test_without_a_registry_nothing_is_missing() -> None:
    assert Codec().missing_schemas([b"\0\0\0\0\7abc"]) == set()


# The specification's own way to the canonical form, by hand, and its own algorithm for the fingerprint.
def canonical(schema: Any) -> Any:
    if isinstance(schema, list):
        return [canonical(branch) for branch in schema]
    if isinstance(schema, str):
        return f"sitelog.events.{schema}" if schema[0].isupper() else schema
    kind = schema["type"]
    if kind in ("array", "map"):
        inner = "items" if kind == "array" else "values"
        return {"type": kind, inner: canonical(schema[inner])}
    if kind == "enum":
        return {"name": f"sitelog.events.{schema['name']}", "type": kind, "symbols": schema["symbols"]}
    if kind == "record":
        fields = [{"name": field["name"], "type": canonical(field["type"])} for field in schema["fields"]]
        return {"name": f"sitelog.events.{schema['name']}", "type": kind, "fields": fields}
    return kind


def rabin(data: bytes) -> int:
    empty = 0xC15D213AA4D7A795
    result = empty
    for byte in data:
        low = (result ^ byte) & 0xFF
        for _ in range(8):
            low = (low >> 1) ^ (empty & -(low & 1))
        result = (result >> 8) ^ low
    return result


def test_the_algorithm_gives_the_known_fingerprint_of_int() -> None:
    assert rabin(b'"int"') == 0x7275D51A3F395C8F


@pytest.mark.parametrize("schema", load(), ids=lambda schema: f"{schema.event_type}-{schema.version}")
def test_the_header_is_what_the_avro_specification_says(schema: EventSchema) -> None:
    text = json.dumps(canonical(schema.schema), separators=(",", ":"))
    assert header(fingerprint_of(schema.schema)) == b"\xc3\x01" + rabin(text.encode()).to_bytes(8, "little")
    assert fingerprint_of(schema.schema) % 2**64 == rabin(text.encode())
