"""A line of JSON is an event, or each of its problems is named."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sitelog.streams import json_lines
from sitelog.streams._event import Event
from sitelog.streams.examples import example
from sitelog.streams.json_lines import InvalidLine, event_of, line_of
from tests.event_strategies import events

SITE = {"type": "site_created", "site_id": "site-1", "site_data": {}}
UPDATE = {"type": "site_updated", "site_id": "site-1", "changed_fields": ["name"]}


@settings(deadline=None)
@given(event=events())
def test_an_event_survives_as_a_line(event: Event) -> None:
    line = line_of(event)
    assert "\n" not in line
    assert event_of(line.encode()) == event


def test_id_and_time_may_be_left_out() -> None:
    first, second = (event_of(json.dumps(SITE).encode()) for _ in range(2))
    assert first.event_id != second.event_id


WRONG: list[tuple[Any, str]] = [
    ({"type": "site_created"}, "site_id: expected a value, got none; site_data: expected a value, got none"),
    ({}, "type: expected an event's name, got none: known are contact_added, contact_changed,"),
    ({"type": "site_creatd"}, 'type: expected an event\'s name, got "site_creatd": did you mean site_created?'),
    ({"type": ["site_created"]}, 'type: expected an event\'s name, got ["site_created"]'),
    ([1], "expected a JSON object, got [1]"),
    (SITE | {"site_id": ""}, 'site_id: expected at least 1 character, got ""'),
    (SITE | {"site_id": "x" * 101}, 'site_id: expected at most 100 characters, got "xxxx'),
    (SITE | {"site_id": None}, "site_id: expected text, got null"),
    (SITE | {"site_id": "a\0"}, 'site_id: expected text without the NUL character, got "a\\u0000"'),
    (SITE | {"actr": "me"}, "actr: expected a field of the event: did you mean actor?"),
    (SITE | {"site_data": {"adress": {}}}, "site_data.adress: expected a field of the event: did you mean address?"),
    (
        SITE | {"site_data": {"address": {"zip": 1}}},
        "site_data.address.zip: expected a field of the event: known are line1, line2, city, region,",
    ),
    (
        SITE | {"site_data": {"operating_hours": [{"weekday": "MONDAY", "opens": "06:00", "close": "1"}]}},
        "site_data.operating_hours.0.close: expected a field of the event: did you mean closes?",
    ),
    (SITE | {"site_data": []}, "site_data: expected an object, got []"),
    (SITE | {"site_data": {"operating_hours": {}}}, "site_data.operating_hours: expected a list, got {}"),
    (SITE | {"event_timestamp": "yesterday"}, "expected a time with its offset, such as 2025-07-24T12:00:00Z, got"),
    (SITE | {"event_timestamp": "2025-07-24"}, "expected a time with its offset, such as 2025-07-24T12:00:00Z, got"),
    (SITE | {"event_timestamp": 1753358400}, "event_timestamp: expected ISO 8601 text such as 2025-07-24 or"),
    (SITE | {"event_timestamp": "0001-01-01T00:00:00+01:00"}, "event_timestamp: expected a time from 2000 until 2100"),
    (SITE | {"event_id": "7"}, 'event_id: expected a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057, got "7"'),
    (SITE | {"expected_version": 1.5}, "expected_version: expected a whole number, got 1.5"),
    (SITE | {"expected_version": -1}, "expected_version: expected at least 0, got -1"),
    (SITE | {"site_data": {"parking_capacity": 2**40}}, "expected less than 2147483648, got 1099511627776"),
    (UPDATE | {"changed_fields": ["nam"]}, "changed_fields.0: expected 'name', 'address', 'territory_id',"),
    (UPDATE | {"changed_fields": []}, "changed_fields: expected at least one field, got []"),
]


@pytest.mark.parametrize(("line", "message"), WRONG)
def test_a_line_s_problem_is_named(line: Any, message: str) -> None:
    with pytest.raises(InvalidLine) as refused:
        event_of(json.dumps(line).encode())
    assert message in str(refused.value)


METRICS = [
    ({"monthly_revenue": "1.005"}, 'metrics.monthly_revenue: expected at most 2 decimals, got "1.005"'),
    ({"monthly_revenue": "much"}, 'metrics.monthly_revenue: expected a decimal number, got "much"'),
    ({"monthly_revenue": "123456789012345.00"}, "metrics.monthly_revenue: expected at most 1"),
    (
        {"monthly_revenue": 99999999999999.99},
        'metrics.monthly_revenue: expected money as a string such as "12.50", got 99999999999999.98',
    ),
    ({"monthly_revenue": "Infinity"}, "metrics.monthly_revenue: expected a finite number"),
    ({"growth_trends": "0.5"}, 'metrics.growth_trends: expected a number, got "0.5"'),
]


@pytest.mark.parametrize(("metrics", "message"), METRICS)
def test_a_measure_s_problem_is_named(metrics: dict[str, Any], message: str) -> None:
    line = json.loads(line_of(example("performance_recorded"))) | {"metrics": metrics}
    with pytest.raises(InvalidLine) as refused:
        event_of(json.dumps(line).encode())
    assert message in str(refused.value)


@pytest.mark.parametrize("line", [b"{", b"\xff", b"", b'{"type": NaN}', b'{"a": "\\ud800"}', b"[" * 100_000])
def test_what_is_no_json_is_said(line: bytes) -> None:
    with pytest.raises(InvalidLine, match=r"^expected JSON, got "):
        event_of(line)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"[" * 300 + b"]" * 300, "expected a JSON object, got a list that is nested too deeply"),
        (
            b'{"type": ' + b"[" * 1_020 + b"]" * 1_020 + b"}",
            "type: expected an event's name, got a list that is nested",
        ),
        (
            b'{"type": "site_deleted", "site_id": ' + b'{"a":' * 300 + b"1" + b"}" * 301,
            "site_id: expected text, got a dict that is nested too deeply",
        ),
    ],
)
def test_what_is_nested_too_deeply_to_be_shown_is_named_by_its_type(line: bytes, shown: str) -> None:
    with pytest.raises(InvalidLine) as refused:
        event_of(line)
    assert shown in str(refused.value)


def test_a_long_value_and_many_problems_are_cut() -> None:
    line = SITE | {"site_data": {"operating_hours": [{"opens": "x" * 500}] * 100}}
    with pytest.raises(InvalidLine) as refused:
        event_of(json.dumps(line).encode())
    assert len(str(refused.value)) < 2_000
    assert str(refused.value).endswith("; and 290 more")


def test_only_problems_that_are_shown_are_put_into_words(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    monkeypatch.setattr(json_lines, "get_close_matches", lambda name, *_, **__: compared.append(name))
    with pytest.raises(InvalidLine, match=r"; and 990 more$"):
        event_of(json.dumps(SITE | {f"field {n}": 1 for n in range(1_000)}).encode())
    assert len(compared) == 10


@settings(deadline=None)
@given(line=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: json.dumps({"type": text}).encode()))
def test_any_bytes_are_an_event_or_an_invalid_line(line: bytes) -> None:
    with pytest.raises(InvalidLine):
        event_of(line)
