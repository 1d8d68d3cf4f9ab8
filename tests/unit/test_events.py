"""What a producer can and can't say."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from sitelog.streams._event import Event
from sitelog.streams.events import EVENT_TYPES, SiteCreated, SiteUpdated, SiteValues
from sitelog.streams.examples import example
from sitelog.streams.json_lines import event_of, line_of

SITE = "site_created"
UPDATE = "site_updated"
HOURS = {"weekday": "MONDAY", "opens": "06:00", "closes": "22:00"}


def site(**values: Any) -> dict[str, Any]:
    return {"site_data": values}


REFUSED = [
    (SITE, {"site_id": ""}, "at least 1 character"),
    (SITE, {"site_id": "x" * 101}, "at most 100 characters"),
    (SITE, {"site_id": "a\0b"}, "without the NUL"),
    (SITE, {"site_id": 7}, "valid string"),
    (SITE, {"source_system": "\0"}, "without the NUL"),
    (SITE, {"actor": "\ud800"}, "UTF-8"),
    (SITE, {"event_id": "not-a-uuid"}, "expected a UUID"),
    (SITE, {"event_id": "01983D5E-7C00-7000-8000-000000000001"}, "canonical form 01983d5e-7c00-7000-8000-000000000001"),
    (SITE, {"event_timestamp": "2025-07-24T12:00:00"}, "timezone"),
    (SITE, {"event_timestamp": 1753358400}, "ISO 8601"),
    (SITE, {"event_timestamp": "1753358400"}, "ISO 8601"),
    (SITE, {"event_timestamp": "1753358400.5"}, "ISO 8601"),
    (SITE, {"event_timestamp": "1.7533584e9"}, "ISO 8601"),
    (SITE, {"event_timestamp": Decimal(1753358400)}, "ISO 8601"),
    (SITE, {"event_timestamp": b"1753358400"}, "ISO 8601"),
    (SITE, {"event_timestamp": "1999-12-31T23:59:59Z"}, "from 2000 until 2100"),
    (SITE, {"event_timestamp": "2100-01-01T00:00:00Z"}, "from 2000 until 2100"),
    (SITE, {"event_timestamp": "0001-01-01T00:00:00+01:00"}, "from 2000 until 2100"),
    (SITE, {"event_timestamp": "9999-12-31T23:59:59.999-01:00"}, "from 2000 until 2100"),
    (SITE, {"expected_version": -1}, "greater than or equal to 0"),
    (SITE, {"expected_version": 2**63}, "less than"),
    (SITE, {"expected_version": "1"}, "valid integer"),
    (SITE, {"expected_version": True}, "valid integer"),
    (SITE, {"sitename": "x"}, "Extra inputs"),
    (SITE, {"site_data": None}, "valid dictionary"),
    (SITE, site(nmae="x"), "Extra inputs"),
    (SITE, site(parking_capacity=-1), "greater than or equal to 0"),
    (SITE, site(parking_capacity=2**31), "less than"),
    (SITE, site(parking_capacity=1.5), "valid integer"),
    (SITE, site(territory_id=""), "at least 1 character"),
    (SITE, site(contract_info={}), "Field required"),
    (SITE, site(contract_info={"contract_id": "c", "start_date": 20_000}), "ISO 8601"),
    (SITE, site(contract_info={"contract_id": "c", "start_date": Decimal(20_000)}), "ISO 8601"),
    (SITE, site(contract_info={"contract_id": "c", "start_date": "2025-02-30"}), "valid date"),
    (SITE, site(contract_info={"contract_id": "c", "billing_configuration": {"a": "\0"}}), "without the NUL"),
    (SITE, site(contract_info={"contract_id": "c", "billing_configuration": {"\0": "a"}}), "without the NUL"),
    (SITE, site(operating_hours=[HOURS | {"opens": "6:00"}]), "HH:MM"),
    (SITE, site(operating_hours=[HOURS | {"opens": "24:01"}]), "HH:MM"),
    (SITE, site(operating_hours=[HOURS | {"opens": "06:00\n"}]), "HH:MM"),
    (SITE, site(operating_hours=[HOURS | {"opens": "0\u0666:00"}]), "HH:MM"),
    (SITE, site(operating_hours=[HOURS | {"weekday": "Monday"}]), "'MONDAY'"),
    (SITE, site(location_coordinates={"latitude": 90.1, "longitude": 0}), "less than or equal to 90"),
    (SITE, site(location_coordinates={"latitude": 0, "longitude": -180.1}), "greater than or equal to -180"),
    (SITE, site(location_coordinates={"latitude": float("nan"), "longitude": 0}), "finite number"),
    (SITE, site(location_coordinates={"latitude": 1}), "Field required"),
    (UPDATE, {"changed_fields": []}, "at least one field"),
    (UPDATE, {"changed_fields": ["name", "name"]}, "each field once"),
    (UPDATE, {"changed_fields": ["nmae"]}, "'name', 'address'"),
    (UPDATE, {"changed_fields": "name"}, "valid tuple"),
    ("contract_created", {"contract_id": ""}, "at least 1 character"),
    (
        "contract_created",
        {"contract_data": {"start_date": "2025-02-01", "end_date": "2025-01-31"}},
        "not before start_date, which is 2025-02-01",
    ),
    ("performance_recorded", {"period_end": "2025-05-31"}, "not before period_start, which is 2025-06-01"),
    ("performance_recorded", {"metrics": {"monthly_revenue": "1.005"}}, "2 decimal places"),
    ("performance_recorded", {"metrics": {"monthly_revenue": "100000000000000.00"}}, "digits"),
    ("performance_recorded", {"metrics": {"monthly_revenue": 12.5}}, 'expected money as a string such as "12.50"'),
    ("performance_recorded", {"metrics": {"monthly_revenue": "NaN"}}, "finite number"),
    ("performance_recorded", {"metrics": {"occupancy_rates": [float("inf")]}}, "finite number"),
    ("territory_boundary_changed", {"boundary": "POLYGON((0 0))"}, "GeoJSON object as JSON text"),
    ("territory_boundary_changed", {"boundary": "[]"}, 'JSON without a "type"'),
    ("territory_boundary_changed", {"boundary": '{"type": 1}'}, 'JSON without a "type"'),
    ("territory_boundary_changed", {"boundary": '{"type": "Point", "x": "\\u0000"}'}, "NUL"),
    ("territory_boundary_changed", {"boundary": r'{"type": "Point", "x": "\\\u0000"}'}, "NUL"),
    ("territory_boundary_changed", {"boundary": '{"type": "Point", "x": 1e-16384}'}, "more than 16383 decimals"),
    ("territory_boundary_changed", {"boundary": '{"type": "Point", "x": 0.10E-016383}'}, "more than 16383 decimals"),
    ("territory_boundary_changed", {"boundary": '{"type": "Point", "x": 0e2147483648}'}, "more than 16383 decimals"),
    ("territory_boundary_changed", {"boundary": f'{{"type": "Point", "x": 0.{"0" * 16_384}}}'}, "16383 decimals"),
    ("territory_boundary_changed", {"boundary": '{"type": "Point", "x": "\\ud800"}'}, "GeoJSON object as JSON text"),
    ("territory_boundary_changed", {"boundary": '{"type": "Point", "x": ' + "[" * 100_000}, "GeoJSON object"),
]


@pytest.mark.parametrize(("event_type", "values", "message"), REFUSED)
def test_a_producer_is_told_what_is_wrong(event_type: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        example(event_type, **values)
    assert refusal.value.error_count() == 1
    assert re.search(re.escape(message), str(refusal.value))


ACCEPTED: list[tuple[dict[str, Any], Callable[[Any], object], object]] = [
    ({"site_id": "x" * 100}, lambda event: event.site_id, "x" * 100),
    ({"site_id": "é" * 100}, lambda event: len(event.site_id.encode()), 200),
    (
        {"event_timestamp": "2025-07-24T14:00:00+02:00"},
        lambda event: event.event_timestamp,
        datetime(2025, 7, 24, 12, tzinfo=UTC),
    ),
    ({"event_timestamp": "2025-07-24T14:00:00+02:00"}, lambda event: event.event_timestamp.tzinfo, UTC),
    (site(operating_hours=[HOURS]), lambda event: event.site_data.operating_hours[0].weekday, "MONDAY"),
    (site(location_coordinates={"latitude": 90, "longitude": -180}), lambda e: e.site_data.name, None),
]


@pytest.mark.parametrize(("values", "attribute", "expected"), ACCEPTED)
def test_a_producer_may_say_so(values: dict[str, Any], attribute: Callable[[Any], object], expected: object) -> None:
    assert attribute(example(SITE, **values)) == expected


BOUNDARIES = [
    r'{"type": "Point", "x": "\\u0000"}',
    r'{"type": "Point", "x": "\\\\u0000"}',
    '{"type": "Point", "x": [1e-16383, 0.25E-16381, 1e0000000000000000001, 1e308]}',
    '{"type": "Point", "x": "1e-20000 \\" 1e-20000"}',
    f'{{"type": "Point", "x": 0.{"0" * 16_383}}}',
]


@pytest.mark.parametrize("boundary", BOUNDARIES, ids=lambda boundary: boundary[:50])
def test_a_boundary_may_be_what_postgres_can_hold(boundary: str) -> None:
    assert example("territory_boundary_changed", boundary=boundary).boundary == boundary  # type: ignore[attr-defined]


def test_an_event_without_id_and_time_gets_new_ones() -> None:
    before = datetime.now(UTC)
    first = SiteCreated(site_id="a", site_data=SiteValues())
    second = SiteCreated(site_id="a", site_data=SiteValues())
    assert before <= first.event_timestamp <= datetime.now(UTC)
    assert first.event_id != second.event_id
    assert UUID(first.event_id).version == 7


def test_an_event_never_changes() -> None:
    event = example(UPDATE)
    with pytest.raises(ValidationError, match="frozen"):
        event.source_system = "other"  # type: ignore[misc]
    assert isinstance(event, SiteUpdated)
    assert isinstance(event.changed_fields, tuple)


def test_new_values_may_be_left_out_as_null_is_what_is_meant_then() -> None:
    event = SiteUpdated(site_id="a", changed_fields=("address",))
    assert event.new_values is None


def test_money_is_exact() -> None:
    event: Any = example("performance_recorded", metrics={"monthly_revenue": "99999999999999.99"})
    assert event.metrics.monthly_revenue == Decimal("99999999999999.99")


def test_money_may_be_a_whole_number() -> None:
    event: Any = example("performance_recorded", metrics={"monthly_revenue": 12})
    assert event.metrics.monthly_revenue == Decimal(12)


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_every_event_has_an_example_that_is_the_same_each_time(event_type: str) -> None:
    assert example(event_type) == example(event_type)
    assert event_of(line_of(example(event_type)).encode()) == example(event_type)


@pytest.mark.parametrize("event", EVENT_TYPES.values(), ids=EVENT_TYPES)
def test_every_event_names_its_topic_entity_and_key(event: type[Event]) -> None:
    assert EVENT_TYPES[event.event_type] is event
    assert event.key_field == f"{event.entity_type}_id"
    assert event.topic == {"site": "customer-sites-events", "territory": "territory-events"}[event.entity_type]
    assert example(event.event_type).entity_id == getattr(example(event.event_type), event.key_field)


def test_example_ids_differ_from_event_to_event() -> None:
    assert len({example(event_type).event_id for event_type in EVENT_TYPES}) == len(EVENT_TYPES)
