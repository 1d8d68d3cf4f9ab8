"""An example of every event, for the command line, the documentation and tests."""

from typing import Any, Final
from uuid import UUID

from sitelog.streams._event import Event
from sitelog.streams.events import EVENT_TYPES

_SITE: Final = {
    "name": "Harbour View Garage",
    "address": {
        "line1": "12 Harbour Street",
        "city": "Baltimore",
        "region": "MD",
        "postal_code": "21202",
        "country": "US",
    },
    "territory_id": "mid-atlantic",
    "contract_info": {
        "contract_id": "contract-1",
        "contract_type": "management",
        "billing_cycle": "monthly",
        "billing_configuration": {"invoice_day": "1"},
        "start_date": "2025-01-01",
        "end_date": "2026-12-31",
    },
    "parking_capacity": 420,
    "operating_hours": [
        {"weekday": "MONDAY", "opens": "06:00", "closes": "24:00"},
        {"weekday": "SATURDAY", "opens": "08:00", "closes": "02:00"},
    ],
    "facility_type": "garage",
    "location_coordinates": {"latitude": 39.2833, "longitude": -76.6087},
    "market_segment": "hospitality",
}
_CONTRACT: Final = {
    "contract_type": "management",
    "billing_cycle": "monthly",
    "billing_configuration": {"invoice_day": "1"},
    "start_date": "2025-01-01",
    "end_date": "2026-12-31",
}
_BOUNDARY: Final = '{"type":"Polygon","coordinates":[[[-77,39],[-76,39],[-76,40],[-77,40],[-77,39]]]}'
_OWN: Final[dict[str, dict[str, Any]]] = {
    "site_created": {"site_data": _SITE},
    "site_updated": {
        "changed_fields": ["name", "parking_capacity"],
        "old_values": {"name": "Harbour View Garage", "parking_capacity": 420},
        "new_values": {"name": "Harbour View", "parking_capacity": 400},
    },
    "site_deleted": {"reason": "demolished"},
    "contract_created": {"contract_id": "contract-1", "contract_data": _CONTRACT},
    "contract_updated": {
        "contract_id": "contract-1",
        "changed_fields": ["billing_cycle"],
        "old_values": {"billing_cycle": "monthly"},
        "new_values": {"billing_cycle": "quarterly"},
    },
    "contract_terminated": {"contract_id": "contract-1", "termination_date": "2026-06-30", "reason": "sold"},
    "site_assigned_to_territory": {
        "territory_id": "north-east",
        "previous_territory_id": "mid-atlantic",
        "effective_at": "2025-08-01T00:00:00Z",
        "reason": "strategic_account",
        "approved_by": "regional director",
    },
    "performance_recorded": {
        "period_start": "2025-06-01",
        "period_end": "2025-06-30",
        "metrics": {
            "monthly_revenue": "125000.50",
            "currency": "USD",
            "occupancy_rates": [0.71, 0.68, 0.83, 0.9],
            "seasonal_patterns": [0.9, 1.0, 1.2, 0.9],
            "growth_trends": 0.04,
            "labor_productivity": 31.5,
            "cost_efficiency": 0.82,
            "service_quality": 4.6,
            "customer_satisfaction": 4.4,
        },
    },
    "contact_added": {
        "contact_id": "contact-1",
        "contact": {
            "name": "Front Desk",
            "email": "desk@example.com",
            "phone": "+1 202 555 0147",
            "role": "site manager",
        },
    },
    "contact_changed": {
        "contact_id": "contact-1",
        "changed_fields": ["phone"],
        "old_values": {"phone": "+1 202 555 0147"},
        "new_values": {"phone": "+1 202 555 0148"},
    },
    "contact_removed": {"contact_id": "contact-1", "reason": "left"},
    "territory_created": {
        "territory_data": {
            "name": "Mid-Atlantic",
            "code": "MA",
            "region": "East",
            "manager": "regional director",
            "boundary": _BOUNDARY,
        }
    },
    "territory_updated": {
        "changed_fields": ["manager"],
        "old_values": {"manager": "regional director"},
        "new_values": {"manager": "area director"},
    },
    "territory_boundary_changed": {"boundary": _BOUNDARY},
    "territory_deleted": {"reason": "merged into north-east"},
}


def example(event_type: str, **values: Any) -> Event:
    """Return an example of this event, the same one each time, id and timestamp included; `values` replace fields.

    Raises KeyError for a name that no event has, and pydantic's ValidationError for values that it can't have.
    """
    event = EVENT_TYPES[event_type]
    number = list(EVENT_TYPES).index(event_type) + 1
    fields = {
        "event_id": str(UUID(int=0x0198_3D5E_7C00_7000_8000_0000_0000_0000 + number)),
        "event_timestamp": "2025-07-24T12:00:00Z",
        event.key_field: "site-1" if event.entity_type == "site" else "mid-atlantic",
        "source_system": "crm",
        **_OWN[event_type],
    }
    return event.model_validate(fields | values)
