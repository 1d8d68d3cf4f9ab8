"""Sites and territories that live: every kind of event, each valid after those before it."""

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sitelog.streams._event import Event
from sitelog.streams.examples import example

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SITE_KINDS = {
    "site_updated": 40,
    "site_assigned_to_territory": 10,
    "performance_recorded": 10,
    "contract_created": 4,
    "contract_updated": 10,
    "contract_terminated": 3,
    "contact_added": 6,
    "contact_changed": 10,
    "contact_removed": 3,
    "site_deleted": 1,
}
TERRITORY_KINDS = {"territory_updated": 10, "territory_boundary_changed": 5, "territory_deleted": 1}
NEEDS = {
    "contract_updated": "contract_id",
    "contract_terminated": "contract_id",
    "contact_changed": "contact_id",
    "contact_removed": "contact_id",
}


class Lives:
    """An endless life of `sites` sites and a few territories; the same for the same seed."""

    def __init__(self, seed: int, *, sites: int = 150, territories: int = 12) -> None:
        self._random = random.Random(seed)  # noqa: S311 - not a secret
        self._sites: dict[str, dict[str, list[str]] | None] = {f"site-{seed}-{n}": None for n in range(sites)}
        self._territories = {f"territory-{seed}-{n}": False for n in range(territories)}
        self._now = BEGIN
        self._count = 0

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        self._count += 1
        self._now += timedelta(seconds=self._random.randint(1, 90))
        if self._random.random() < 0.1:
            return self._territory(self._random.choice(list(self._territories)))
        return self._site(self._random.choice(list(self._sites)))

    def _event(self, kind: str, **values: Any) -> Event:
        event_id = str(UUID(int=self._random.getrandbits(128), version=4))
        return example(kind, event_id=event_id, event_timestamp=self._now, **values)

    def _territory(self, territory_id: str) -> Event:
        exists = self._territories[territory_id]
        kind = self._one_of(TERRITORY_KINDS) if exists else "territory_created"
        self._territories[territory_id] = kind != "territory_deleted"
        values: dict[str, Any] = {}
        if kind == "territory_updated":
            values = {"new_values": {"manager": f"manager {self._count}"}, "old_values": None}
        return self._event(kind, territory_id=territory_id, **values)

    def _site(self, site_id: str) -> Event:
        known = self._sites[site_id]
        if known is None:
            self._sites[site_id] = {"contract_id": ["contract-1"], "contact_id": []}
            return self._event("site_created", site_id=site_id)
        kind = self._one_of({kind: weight for kind, weight in SITE_KINDS.items() if known.get(NEEDS.get(kind, ""), 1)})
        if kind == "site_deleted":
            self._sites[site_id] = None
        return self._event(kind, site_id=site_id, **getattr(self, f"_{kind}", self._as_it_is)(known))

    def _one_of(self, weights: dict[str, int]) -> str:
        return self._random.choices(list(weights), list(weights.values()))[0]

    def _as_it_is(self, _: dict[str, list[str]]) -> dict[str, Any]:
        return {}

    def _site_updated(self, _: dict[str, list[str]]) -> dict[str, Any]:
        """Change one to three fields; now and then on wrong premises, which is a conflict."""
        new = {
            "name": f"Site {self._count}",
            "parking_capacity": self._random.randint(0, 5_000),
            "market_segment": self._random.choice(["hospitality", "healthcare", None]),
            "address": {"line1": f"{self._count} Harbour Street", "city": "Baltimore"},
            "territory_id": self._random.choice(list(self._territories)),
        }
        fields = self._random.sample(sorted(new), self._random.randint(1, 3))
        return {
            "changed_fields": fields,
            "new_values": {field: new[field] for field in fields},
            "old_values": dict.fromkeys(fields) if self._random.random() < 0.1 else None,
            "expected_version": self._random.randint(1, 20) if self._random.random() < 0.1 else None,
        }

    def _site_assigned_to_territory(self, _: dict[str, list[str]]) -> dict[str, Any]:
        at = self._now + timedelta(days=self._random.randint(-30, 30))
        return {
            "territory_id": self._random.choice(list(self._territories)),
            "previous_territory_id": None,
            "effective_at": self._random.choice([None, at]),
        }

    def _performance_recorded(self, _: dict[str, list[str]]) -> dict[str, Any]:
        start = date(2026, self._random.randint(1, 12), 1)
        revenue = Decimal(self._random.randint(0, 10**9)).scaleb(-2)
        return {
            "period_start": start,
            "period_end": start + timedelta(days=27),
            "metrics": {"monthly_revenue": revenue, "currency": "USD", "occupancy_rates": [0.5, 0.75]},
        }

    def _contract_created(self, known: dict[str, list[str]]) -> dict[str, Any]:
        return {"contract_id": self._new(known, "contract_id")}

    def _contract_updated(self, known: dict[str, list[str]]) -> dict[str, Any]:
        cycle = self._random.choice(["weekly", "monthly", "quarterly"])
        values = {"old_values": None, "new_values": {"billing_cycle": cycle}}
        return {"contract_id": self._random.choice(known["contract_id"]), **values}

    def _contract_terminated(self, known: dict[str, list[str]]) -> dict[str, Any]:
        return {"contract_id": self._random.choice(known["contract_id"])}

    def _contact_added(self, known: dict[str, list[str]]) -> dict[str, Any]:
        return {"contact_id": self._new(known, "contact_id")}

    def _contact_changed(self, known: dict[str, list[str]]) -> dict[str, Any]:
        return {"contact_id": self._random.choice(known["contact_id"])}

    def _contact_removed(self, known: dict[str, list[str]]) -> dict[str, Any]:
        return {"contact_id": self._random.choice(known["contact_id"])}

    def _new(self, known: dict[str, list[str]], kind: str) -> str:
        known[kind].append(f"{kind}-{self._count}")
        return known[kind][-1]
