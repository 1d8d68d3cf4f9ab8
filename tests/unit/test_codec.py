"""Events to bytes and back, and everything that isn't an event's bytes."""

import tracemalloc
from collections.abc import Callable
from decimal import localcontext
from io import BytesIO
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from sitelog.schemas import load, newest
from sitelog.streams._event import Event
from sitelog.streams.codec import Codec, Undecodable
from sitelog.streams.events import EVENT_TYPES, SiteUpdated
from sitelog.streams.examples import example
from tests.event_strategies import events
from tests.registries import FilledRegistry

REASONS = {"empty", "wrong_bytes", "unknown_schema", "truncated", "invalid_value"}
CODEC = Codec()
# For each of the fifteen events; the loaded machine decides how long one takes.
few = settings(max_examples=15, deadline=None)
every_event = pytest.mark.parametrize("event_type", EVENT_TYPES)


def encoded(event_type: str, **changes: Any) -> bytes:
    """Bytes that fastavro alone makes of an example with some fields changed: no check of ours is in the way."""
    schema = newest(load())[event_type].schema
    values = example(event_type).model_dump() | changes
    stream = BytesIO()
    schemaless_writer(stream, parse_schema(dict(schema)), _lists(values))
    return CODEC.encode(example(event_type))[:10] + stream.getvalue()


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lists(inner) for name, inner in value.items()}
    return [_lists(inner) for inner in value] if isinstance(value, tuple | list) else value


def refusal(value: bytes | None, codec: Codec = CODEC) -> Undecodable:
    with pytest.raises(Undecodable) as refused:
        codec.decode(value)
    assert refused.value.reason in REASONS
    return refused.value


def undecodable_or_valid(value: bytes, codec: Codec = CODEC) -> None:
    """Whatever comes out of the codec would pass every check that a producer's event passes."""
    reason, event = None, None
    try:
        event = codec.decode(value).event
    except Undecodable as refused:
        reason = refused.reason
    if event is None:
        assert reason in REASONS
    else:
        assert type(event).model_validate(event.model_dump()) == event


@every_event
@few
@given(data=st.data())
def test_what_was_encoded_is_decoded_with_a_fingerprint(event_type: str, data: st.DataObject) -> None:
    event = data.draw(events(event_type))
    value = CODEC.encode(event)
    decoded = CODEC.decode(value)
    assert decoded.event == event
    assert type(decoded.event) is type(event)
    assert decoded.event.model_dump() == event.model_dump()
    assert CODEC.decode_body(decoded.fingerprint, decoded.body) == event
    assert value[:2] == b"\xc3\x01"


@every_event
@few
@given(data=st.data())
def test_another_library_writes_the_same_bytes_and_reads_them(event_type: str, data: st.DataObject) -> None:
    event = data.draw(events(event_type))
    schema = parse_schema(dict(newest(load())[event_type].schema))
    body = CODEC.encode(event)[10:]
    stream = BytesIO()
    schemaless_writer(stream, schema, _lists(event.model_dump()))
    assert body == stream.getvalue()
    assert schemaless_reader(BytesIO(body), schema, None) == _lists(event.model_dump())


def test_money_is_exact_whatever_the_caller_s_decimals_are_rounded_to() -> None:
    event = example("performance_recorded", metrics={"monthly_revenue": "-99999999999999.99"})
    value = CODEC.encode(event)
    with localcontext(prec=6):
        assert CODEC.encode(event) == value
        assert CODEC.decode(value).event == event


@every_event
async def test_what_was_encoded_is_decoded_with_a_schema_id(event_type: str) -> None:
    codec = Codec(FilledRegistry())
    await codec.register()

    @few
    @given(event=events(event_type))
    def holds(event: Event) -> None:
        value = codec.encode(event)
        decoded = codec.decode(value)
        assert decoded.event == event
        assert value[0] == 0
        # The log keeps no framing: the same event is the same there, whatever way it came.
        assert CODEC.decode_body(decoded.fingerprint, decoded.body) == event

    holds()


@every_event
def test_a_decoded_event_is_like_a_producer_s_own(event_type: str) -> None:
    event = example(event_type)
    decoded = CODEC.decode(CODEC.encode(event)).event
    assert repr(decoded.model_copy()) == repr(decoded)
    assert decoded.model_copy(update={"actor": "me"}).actor == "me"
    assert decoded.model_copy(deep=True) == event
    assert type(event).model_validate_json(decoded.model_dump_json()) == event
    assert decoded.entity_id == event.entity_id
    with pytest.raises(ValueError, match="frozen"):
        decoded.actor = "me"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        decoded.no_such_field  # type: ignore[attr-defined]  # noqa: B018


@every_event
def test_every_event_cut_short_is_truncated(event_type: str) -> None:
    value = CODEC.encode(example(event_type))
    for length in range(1, len(value)):
        assert refusal(value[:length]).reason == "truncated", length


@every_event
def test_bytes_behind_the_end_are_refused(event_type: str) -> None:
    value = CODEC.encode(example(event_type))
    assert refusal(value + b"\0").reason == "wrong_bytes"


@every_event
@few
@given(data=st.data())
def test_changed_bytes_are_refused_or_a_valid_event(event_type: str, data: st.DataObject) -> None:
    value = bytearray(CODEC.encode(data.draw(events(event_type))))
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(10, len(value) - 1))] = data.draw(st.integers(0, 255))
    undecodable_or_valid(bytes(value))


@every_event
@few
@given(body=st.binary(max_size=300))
def test_random_bytes_are_refused_or_a_valid_event(event_type: str, body: bytes) -> None:
    undecodable_or_valid(CODEC.encode(example(event_type))[:10] + body)


@settings(deadline=None)
@given(value=st.binary(max_size=300))
def test_random_bytes_without_a_header_are_refused(value: bytes) -> None:
    assert refusal(value).reason in {"empty", "wrong_bytes", "unknown_schema", "truncated"}


HUGE = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"  # the largest length that 64 bits can say


@every_event
@few
@given(data=st.data())
def test_a_corrupt_length_allocates_nothing(event_type: str, data: st.DataObject) -> None:
    value = CODEC.encode(example(event_type))
    at = data.draw(st.integers(10, len(value) - 1))
    length = data.draw(st.sampled_from([HUGE, b"\xfe\xff\xff\xff\x0f", b"\xfe\xff\xff\x7f", b"\xff" * 9 + b"\x01"]))
    tracemalloc.start()
    try:
        undecodable_or_valid(value[:at] + length + value[at:])
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_no_value_is_empty() -> None:
    assert refusal(None).reason == "empty"
    assert refusal(b"").reason == "empty"


WRONG: list[tuple[str, Callable[[bytes], bytes], str, str]] = [
    ("JSON", lambda _: b'{"site_id": 1}', "wrong_bytes", "expected 00 or c3 01 at the beginning, got 7b 22"),
    ("another magic", lambda value: b"\xc3\x02" + value[2:], "wrong_bytes", "got c3 02"),
    ("another fingerprint", lambda v: v[:2] + b"12345678" + v[10:], "unknown_schema", "header c3 01 31 32 33"),
    ("an id without a registry", lambda value: b"\0\0\0\0\7" + value[10:], "unknown_schema", "schema id 7"),
    ("no UTF-8", lambda value: value.replace(b"site-1", b"site-\xff"), "wrong_bytes", "UTF-8"),
    ("a NUL", lambda value: value.replace(b"site-1", b"site\0001"), "invalid_value", "site_id: expected text without"),
    ("a third branch", lambda value: value.replace(b"\x06crm\0", b"\x06crm\4"), "wrong_bytes", "actor: expected 0"),
    ("a negative length", lambda v: v.replace(b"\x06crm", b"\x05crm"), "wrong_bytes", "source_system: expected a len"),
    (
        "a number without end",
        lambda value: value.replace(b"\x06crm", b"\xff" * 11),
        "wrong_bytes",
        "expected a number of 64 bits, got a longer one",
    ),
    (
        "a number of 65 bits",
        lambda value: value.replace(b"\x06crm", b"\xff" * 9 + b"\x03"),
        "wrong_bytes",
        "expected a number of 64 bits, got a larger one",
    ),
]


@pytest.mark.parametrize(("change", "reason", "message"), [case[1:] for case in WRONG], ids=[c[0] for c in WRONG])
def test_what_is_no_event_says_why(change: Callable[[bytes], bytes], reason: str, message: str) -> None:
    refused = refusal(change(CODEC.encode(example("site_deleted"))))
    assert refused.reason == reason
    assert message in str(refused)


FOREIGN: list[tuple[str, dict[str, Any], str]] = [
    ("site_deleted", {"site_id": ""}, "site_id: expected 1 to 100 characters, got '0: '"),
    ("site_deleted", {"site_id": "x" * 101}, "site_id: expected 1 to 100 characters, got '101: xxx"),
    ("site_deleted", {"event_id": "17"}, "event_id: expected a UUID of 36 characters, got '17'"),
    ("site_deleted", {"event_id": "01983d5e_7c00_7000_8000_000000000001"}, "event_id: expected a UUID"),
    ("site_deleted", {"event_timestamp": 0}, "event_timestamp: expected microseconds from 2000 until 2100, got 0"),
    ("site_deleted", {"event_timestamp": 1_753_358_400_000}, "got 1753358400000"),
    ("site_deleted", {"event_timestamp": 946_684_799_999_999}, "got 946684799999999"),
    ("site_deleted", {"event_timestamp": 4_102_444_800_000_000}, "got 4102444800000000"),
    # One byte less than a time of our years has, and one more, each with a time of our years in sight.
    ("site_deleted", {"event_timestamp": 2**44}, "got 17592186044416"),
    ("site_deleted", {"event_timestamp": 1_753_358_400_000_000 + 2**55}, "got 37782155418963968"),
    ("site_deleted", {"event_timestamp": 2**63 - 1}, "got 9223372036854775807"),
    ("site_deleted", {"event_timestamp": -(2**63)}, "got -9223372036854775808"),
    ("site_deleted", {"event_timestamp": -1_753_358_400_000_000}, "got -1753358400000000"),
    ("site_deleted", {"expected_version": -1}, "expected_version: expected 0 or more, got -1"),
    ("site_deleted", {"reason": "a\0b"}, "reason: expected text without the NUL character, got 'a\\x00b'"),
    ("site_updated", {"changed_fields": []}, "changed_fields: expected at least one field"),
    ("site_updated", {"changed_fields": ["nmae"]}, "changed_fields: expected one of name, address,"),
    ("site_updated", {"changed_fields": ["name", "name"]}, "changed_fields: expected each field once, got 'name'"),
    ("site_created", {"site_data": {"parking_capacity": -1}}, "SiteValues.parking_capacity: expected 0 or more"),
    (
        "site_created",
        {"site_data": {"location_coordinates": {"latitude": 91.0, "longitude": 0.0}}},
        "Coordinates.latitude: expected -90 to 90, got 91.0",
    ),
    (
        "site_created",
        {"site_data": {"location_coordinates": {"latitude": 0.0, "longitude": float("nan")}}},
        "Coordinates.longitude: expected a finite number, got nan",
    ),
    (
        "site_created",
        {"site_data": {"location_coordinates": {"latitude": 0.0, "longitude": 181.0}}},
        "Coordinates.longitude: expected -180 to 180",
    ),
    (
        "site_created",
        {"site_data": {"operating_hours": [{"weekday": "MONDAY", "opens": "6", "closes": "22:00"}]}},
        "OpeningPeriod.opens: expected HH:MM",
    ),
    (
        "site_created",
        {"site_data": {"contract_info": {"contract_id": "c", "billing_configuration": {"a": "\0"}}}},
        "billing_configuration: expected text without the NUL",
    ),
    (
        "contract_created",
        {"contract_data": {"start_date": 2, "end_date": 1}},
        "end_date: expected a day not before start_date, which is 1970-01-03, got '1970-01-02'",
    ),
    ("contract_terminated", {"termination_date": 2_932_897}, "termination_date: expected -719162 to 2932896 days"),
    (
        "performance_recorded",
        {"metrics": {"monthly_revenue": (10**16).to_bytes(8)}},
        "monthly_revenue: expected at most 16 digits, got '8 bytes'",
    ),
    ("territory_boundary_changed", {"boundary": "POINT(1 2)"}, "boundary: expected a GeoJSON object as JSON text"),
]


@pytest.mark.parametrize(("event_type", "changes", "message"), FOREIGN)
def test_a_foreign_producer_s_value_is_checked(event_type: str, changes: dict[str, Any], message: str) -> None:
    refused = refusal(encoded(event_type, **changes))
    assert refused.reason == "invalid_value"
    assert message in str(refused)


def test_a_uuid_in_capital_letters_is_the_same_event() -> None:
    event = example("site_deleted")
    assert CODEC.decode(encoded("site_deleted", event_id=event.event_id.upper())).event == event


def test_blocks_with_a_size_and_several_blocks_are_read() -> None:
    value = CODEC.encode(example("site_updated", changed_fields=["name", "parking_capacity"]))
    plain = b"\x04\x08name\x20parking_capacity\0"
    assert plain in value
    sized = b"\x01\x0a\x08name" + b"\x02\x20parking_capacity" + b"\0"
    event = CODEC.decode(value.replace(plain, sized)).event
    assert isinstance(event, SiteUpdated)
    assert event.changed_fields == ("name", "parking_capacity")


def test_a_changed_field_s_name_of_a_negative_length_is_refused() -> None:
    value = CODEC.encode(example("site_updated", changed_fields=["name"]))
    plain = b"\x02\x08name\0"
    assert plain in value
    refused = refusal(value.replace(plain, b"\x02\x09name\0"))
    assert refused.reason == "wrong_bytes"
    assert str(refused).endswith("changed_fields: expected a length, got -5")


def test_a_message_stays_short_whatever_the_value() -> None:
    assert len(str(refusal(encoded("site_deleted", site_id="x" * 100_000)))) <= 500


def test_the_log_s_schemas_are_listed_with_their_fingerprints() -> None:
    listed = CODEC.schemas()
    assert {(name, version) for _, name, version, _ in listed} == {(s.event_type, s.version) for s in load()}
    assert all(-(2**63) <= fingerprint < 2**63 for fingerprint, *_ in listed)
    assert {text for *_, text in listed} == {schema.text for schema in load()}


def test_a_body_of_an_unknown_fingerprint_is_refused() -> None:
    with pytest.raises(Undecodable, match="fingerprint 7") as refused:
        CODEC.decode_body(7, b"")
    assert refused.value.reason == "unknown_schema"


def test_an_empty_body_is_truncated() -> None:
    fingerprint = CODEC.schemas()[0][0]
    with pytest.raises(Undecodable) as refused:
        CODEC.decode_body(fingerprint, b"")
    assert refused.value.reason == "truncated"
