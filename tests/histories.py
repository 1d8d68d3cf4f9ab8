"""Hypothesis strategies for what happens to a few sites and territories: tangled, late, repeated and at odds."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from sitelog.streams._event import Event
from sitelog.streams.events import EVENT_TYPES
from tests.event_strategies import events

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SITES = ("airport", "hospital")
TERRITORIES = ("east", "west")
CONTRACTS = ("lease", "management")
CONTACTS = ("desk", "manager")
BOUNDARIES = (
    '{"type":"Point","coordinates":[1,2]}',
    '\n{"coordinates": [1.0, 2e0], "type": "Point"}',
    '{"type":"Polygon"}',
)
"""The first two are the same, and the second isn't spelled as Postgres gives it back."""

NAMES = st.sampled_from(["Harbour", "Garage", None])
DAYS = st.sampled_from([date(2026, 1, 1), date(2026, 2, 1)])
TIMES = st.integers(0, 12).map(lambda hours: BEGIN + timedelta(hours=hours))
BILLING = st.sampled_from([{"invoice_day": "1", "plan": "a"}, {"plan": "a", "invoice_day": "1"}, {}, None])
CONTRACT_VALUES = st.fixed_dictionaries(
    {
        "contract_type": NAMES,
        "billing_cycle": st.sampled_from(["monthly", "weekly"]),
        "billing_configuration": BILLING,
        "start_date": DAYS,
        "end_date": st.none(),
    }
)
CONTRACT_INFO = st.builds(
    lambda values, contract_id: values | {"contract_id": contract_id}, CONTRACT_VALUES, st.sampled_from(CONTRACTS)
)
SITE_VALUES = st.fixed_dictionaries(
    {
        "name": NAMES,
        "address": st.sampled_from([None, {"city": "Baltimore"}, {"city": "Baltimore", "region": "MD"}]),
        "territory_id": st.sampled_from([*TERRITORIES, None]),
        "contract_info": st.none() | CONTRACT_INFO,
        "parking_capacity": st.sampled_from([0, 420, None]),
        "operating_hours": st.sampled_from([None, [], [{"weekday": "MONDAY", "opens": "06:00", "closes": "24:00"}]]),
        "location_coordinates": st.sampled_from([None, {"latitude": 39.25, "longitude": -76.5}]),
    }
)
CONTACT_VALUES = st.fixed_dictionaries({"name": NAMES, "email": st.sampled_from(["desk@example.com", None])})
TERRITORY_VALUES = st.fixed_dictionaries({"name": NAMES, "boundary": st.sampled_from([*BOUNDARIES, None])})
METRICS = st.fixed_dictionaries(
    {
        "monthly_revenue": st.sampled_from([Decimal("1.50"), None]),
        "occupancy_rates": st.sampled_from([None, [0.5, 1.0]]),
    }
)
OWN: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "site_created": {"site_data": SITE_VALUES},
    "site_deleted": {"reason": NAMES},
    "contract_created": {"contract_id": st.sampled_from(CONTRACTS), "contract_data": CONTRACT_VALUES},
    "contract_terminated": {"contract_id": st.sampled_from(CONTRACTS), "termination_date": DAYS, "reason": NAMES},
    "site_assigned_to_territory": {
        "territory_id": st.sampled_from(TERRITORIES),
        "previous_territory_id": st.sampled_from([*TERRITORIES, None]),
        "effective_at": st.none() | TIMES,
        "reason": NAMES,
        "approved_by": st.none(),
    },
    "performance_recorded": {"period_start": DAYS, "period_end": st.just(date(2026, 3, 1)), "metrics": METRICS},
    "contact_added": {"contact_id": st.sampled_from(CONTACTS), "contact": CONTACT_VALUES},
    "contact_removed": {"contact_id": st.sampled_from(CONTACTS), "reason": NAMES},
    "territory_created": {"territory_data": TERRITORY_VALUES},
    "territory_boundary_changed": {
        "boundary": st.sampled_from(BOUNDARIES),
        "old_boundary": st.sampled_from([*BOUNDARIES, None]),
    },
    "territory_deleted": {"reason": NAMES},
}
UPDATES: dict[str, tuple[st.SearchStrategy[dict[str, Any]], dict[str, st.SearchStrategy[Any]]]] = {
    "site_updated": (SITE_VALUES, {}),
    "contract_updated": (CONTRACT_VALUES, {"contract_id": st.sampled_from(CONTRACTS)}),
    "contact_changed": (CONTACT_VALUES, {"contact_id": st.sampled_from(CONTACTS)}),
    "territory_updated": (TERRITORY_VALUES, {}),
}
KINDS = st.sampled_from(sorted(EVENT_TYPES))
"""Every kind as often as every other: half of them come before their time."""


@st.composite
def happenings(draw: st.DrawFn, kind: str | None = None) -> Event:
    """One event at one of the few sites or territories, from a handful of values: they meet, and they clash."""
    kind = kind or draw(KINDS)
    event = EVENT_TYPES[kind]
    values: dict[str, Any] = {
        "event_id": str(UUID(int=draw(st.integers(0, 2**128 - 1)))),
        "event_timestamp": draw(TIMES),
        event.key_field: draw(st.sampled_from(SITES if event.entity_type == "site" else TERRITORIES)),
        "expected_version": draw(st.none() | st.integers(0, 6)),
    }
    if kind in UPDATES:
        record, own = UPDATES[kind]
        names = sorted(draw(record))
        values["changed_fields"] = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
        values["old_values"] = draw(st.none() | record)
        values["new_values"] = draw(st.none() | record)
    else:
        own = OWN[kind]
    for name, strategy in own.items():
        values[name] = draw(strategy)
    return event.model_validate(values)


@st.composite
def begun(draw: st.DrawFn) -> list[Event]:
    """Creations, so that not everything waits for one."""
    kinds = draw(st.lists(st.sampled_from(["site_created", "territory_created", "contact_added", "contract_created"])))
    return [draw(happenings(kind)) for kind in sorted(kinds, reverse=True)]


@dataclass(frozen=True)
class Unreadable:
    """A record of this entity that nobody can decode."""

    topic: str
    entity_id: str


Happening = Event | Unreadable


@st.composite
def histories(draw: st.DrawFn) -> list[Happening]:
    """What happens, one event after the other: some are sent again later, and seldom one can't be read."""
    events = draw(begun()) + draw(st.lists(happenings(), min_size=1, max_size=25))
    happened: list[Happening] = list({event.event_id: event for event in events}.values())
    for again in draw(st.lists(st.sampled_from(happened), max_size=3)):
        happened.insert(draw(st.integers(happened.index(again) + 1, len(happened))), again)
    for entity_id in draw(st.lists(st.sampled_from(SITES + TERRITORIES), max_size=1)):
        topic = "customer-sites-events" if entity_id in SITES else "territory-events"
        happened.insert(draw(st.integers(0, len(happened))), Unreadable(topic, entity_id))
    return happened


@st.composite
def strangers(draw: st.DrawFn) -> Event:
    """One event with any values that its schema allows, at one of the few sites or territories."""
    event = draw(events())
    ids: dict[str, Any] = {
        event.key_field: draw(st.sampled_from(SITES if event.entity_type == "site" else TERRITORIES))
    }
    for name, known in (("contract_id", CONTRACTS), ("contact_id", CONTACTS)):
        if name in type(event).model_fields:
            ids[name] = draw(st.sampled_from(known))
    return event.model_copy(update=ids)
