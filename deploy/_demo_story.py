"""The demo's events: how each airport becomes a site, and what happens to the sites in a year.

The same events with the same ids every time: a second demo on the same stack appends nothing new to the log.
Names, places and coordinates are real; capacities, contracts and figures are made up by a seeded generator.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID, uuid5

from sitelog.deploy._demo_airports import Airport, boundary, territory_id
from sitelog.streams import events as e
from sitelog.streams._event import Event

SEED: Final = 12_579
NAMESPACE: Final = UUID("0b5e9f2c-6d0f-5c1f-9a46-2f1d5f0c7e11")
BEGIN: Final = datetime(2025, 1, 1, tzinfo=UTC)
YEAR: Final = timedelta(days=365)
SENT_TWICE: Final = 100
UNKNOWN_SITE: Final = "NOT-CREATED-YET"
PLACEHOLDER: Final = "us-unassigned"
SOURCE: Final = "demo"


@dataclass
class Expected:
    """What must be in the database when every event is applied."""

    events: Counter[str] = field(default_factory=Counter)
    site_versions: Counter[str] = field(default_factory=Counter)
    sites_deleted: set[str] = field(default_factory=set)
    contacts: set[tuple[str, str]] = field(default_factory=set)
    contracts: set[tuple[str, str]] = field(default_factory=set)
    periods: set[tuple[str, date]] = field(default_factory=set)
    assignments: int = 0
    conflicts: int = 0


class Story:
    """Tells the events in their order, and keeps what is expected of them."""

    def __init__(self, airports: Sequence[Airport], changes: int) -> None:
        self.expected = Expected()
        self._airports = airports
        self._changes = changes
        self._random = random.Random(SEED)  # noqa: S311 - a story, no secret
        self._number = 0
        self._at = BEGIN
        self._by_state: dict[str, list[Airport]] = defaultdict(list)
        for airport in airports:
            self._by_state[airport.state].append(airport)
        self._capacity: dict[str, int | None] = {}
        self._owner: dict[str, str] = {}
        self._billing: dict[str, str] = {}
        self._live: list[Airport] = []
        self._contacts: list[tuple[Airport, str]] = []
        self._states = sorted(self._by_state)

    def __len__(self) -> int:
        """Return how many events there are, those sent twice included."""
        return len(self._by_state) + 2 * len(self._airports) + self._changes + SENT_TWICE + 3

    def events(self) -> Iterator[Event]:
        """Yield territories, sites, contracts, then changes of every kind, then what goes wrong in real life."""
        yield from self._territories()
        yield from self._sites()
        twice: list[Event] = []
        for number in range(self._changes):
            event = self._change()
            yield event
            if number % (self._changes // SENT_TWICE or 1) == 0 and len(twice) < SENT_TWICE:
                twice.append(event)
        yield self._told(e.TerritoryDeleted, territory_id=PLACEHOLDER, reason="every site has a territory of its own")
        yield from twice
        # Its site is created by nobody: it waits, and stops nobody else.
        yield self._new(
            e.SiteUpdated,
            site_id=UNKNOWN_SITE,
            changed_fields=("name",),
            new_values=e.SiteValues(name="An update that came before its site"),
        )

    def _territories(self) -> Iterator[Event]:
        for state, members in sorted(self._by_state.items()):
            values = e.TerritoryValues(name=state, region="United States", boundary=boundary(members))
            yield self._told(e.TerritoryCreated, territory_id=territory_id(state), territory_data=values)
        values = e.TerritoryValues(name="Unassigned", region="United States")
        yield self._told(e.TerritoryCreated, territory_id=PLACEHOLDER, territory_data=values)

    def _sites(self) -> Iterator[Event]:
        for airport in self._airports:
            self._live.append(airport)
            self._capacity[airport.icao] = None
            self._owner[airport.icao] = airport.territory_id
            self.expected.assignments += 1
            yield self._told(e.SiteCreated, site_id=airport.icao, site_data=_values(airport))
            yield self._contract(airport)

    def _contract(self, airport: Airport) -> Event:
        self.expected.contracts.add((airport.icao, f"{airport.icao}-1"))
        self._billing[airport.icao] = "monthly"
        return self._told(
            e.ContractCreated,
            site_id=airport.icao,
            contract_id=f"{airport.icao}-1",
            contract_data=e.ContractValues(
                contract_type=self._random.choice(("management", "lease")),
                billing_cycle="monthly",
                billing_configuration={"currency": "USD"},
                start_date=self._at.date(),
            ),
        )

    def _change(self) -> Event:
        kinds: tuple[tuple[Callable[[Airport], Event], int], ...] = (
            (self._capacity_changed, 40),
            (self._performance, 25),
            (self._billing_changed, 10),
            (self._contact_added, 9),
            (self._contact_changed, 5),
            (self._reassigned, 4),
            (self._conflicting, 1),
            (self._contact_removed, 2),
            (self._territory_managed, 2),
            (self._boundary_moved, 1),
            (self._contract_ended, 1),
            (self._site_deleted, 1),
        )
        tell = self._random.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]
        return tell(self._random.choice(self._live))

    def _capacity_changed(self, airport: Airport) -> Event:
        before, now = self._capacity[airport.icao], self._random.randrange(20, 5_000)
        self._capacity[airport.icao] = now
        return self._told(
            e.SiteUpdated,
            site_id=airport.icao,
            changed_fields=("parking_capacity",),
            old_values=e.SiteValues(parking_capacity=before),
            new_values=e.SiteValues(parking_capacity=now),
        )

    def _conflicting(self, airport: Airport) -> Event:
        """Change a capacity as somebody does who has seen another one."""
        now = self._random.randrange(20, 5_000)
        if self._capacity[airport.icao] == now:
            now += 1
        self._capacity[airport.icao] = now
        self.expected.conflicts += 1
        return self._told(
            e.SiteUpdated,
            site_id=airport.icao,
            changed_fields=("parking_capacity",),
            old_values=e.SiteValues(parking_capacity=1),
            new_values=e.SiteValues(parking_capacity=now),
        )

    def _performance(self, airport: Airport) -> Event:
        start = self._at.date().replace(day=1)
        end = (start + timedelta(days=32)).replace(day=1) - timedelta(days=1)
        self.expected.periods.add((airport.icao, start))
        figures = e.PerformanceValues(
            monthly_revenue=Decimal(self._random.randrange(1_000, 9_000_000)) / 100,
            currency="USD",
            occupancy_rates=tuple(round(self._random.random(), 3) for _ in range(4)),
            growth_trends=round(self._random.uniform(-0.2, 0.3), 4),
            labor_productivity=round(self._random.uniform(0.5, 1.5), 3),
            cost_efficiency=round(self._random.uniform(0.5, 1.5), 3),
            service_quality=round(self._random.uniform(3, 5), 2),
            customer_satisfaction=round(self._random.uniform(3, 5), 2),
        )
        return self._told(
            e.PerformanceRecorded, site_id=airport.icao, period_start=start, period_end=end, metrics=figures
        )

    def _billing_changed(self, airport: Airport) -> Event:
        before = self._billing[airport.icao]
        now = self._billing[airport.icao] = "quarterly" if before == "monthly" else "monthly"
        return self._told(
            e.ContractUpdated,
            site_id=airport.icao,
            contract_id=f"{airport.icao}-1",
            changed_fields=("billing_cycle",),
            old_values=e.ContractValues(billing_cycle=before),
            new_values=e.ContractValues(billing_cycle=now),
        )

    def _contact_added(self, airport: Airport) -> Event:
        contact_id = f"{airport.icao}-{self._number}"
        self.expected.contacts.add((airport.icao, contact_id))
        self._contacts.append((airport, contact_id))
        values = e.ContactValues(name=f"Operations desk, {airport.name}", role="operations")
        return self._told(e.ContactAdded, site_id=airport.icao, contact_id=contact_id, contact=values)

    def _contact_changed(self, airport: Airport) -> Event:
        if not self._contacts:
            return self._contact_added(airport)
        site, contact_id = self._random.choice(self._contacts)
        return self._told(
            e.ContactChanged,
            site_id=site.icao,
            contact_id=contact_id,
            changed_fields=("role",),
            new_values=e.ContactValues(role=self._random.choice(("operations", "billing", "maintenance"))),
        )

    def _contact_removed(self, airport: Airport) -> Event:
        if not self._contacts:
            return self._contact_added(airport)
        site, contact_id = self._contacts.pop(self._random.randrange(len(self._contacts)))
        return self._told(e.ContactRemoved, site_id=site.icao, contact_id=contact_id)

    def _reassigned(self, airport: Airport) -> Event:
        before = self._owner[airport.icao]
        others = [state for state in self._states if territory_id(state) != before]
        now = self._owner[airport.icao] = territory_id(self._random.choice(others))
        self.expected.assignments += 1
        return self._told(
            e.SiteAssignedToTerritory,
            site_id=airport.icao,
            territory_id=now,
            previous_territory_id=before,
            reason="load balancing",
        )

    def _territory_managed(self, airport: Airport) -> Event:
        return self._told(
            e.TerritoryUpdated,
            territory_id=airport.territory_id,
            changed_fields=("region",),
            new_values=e.TerritoryValues(region=self._random.choice(("East", "Central", "West"))),
        )

    def _boundary_moved(self, airport: Airport) -> Event:
        outline = boundary(self._by_state[airport.state], round(self._random.uniform(0.05, 0.5), 3))
        return self._told(e.TerritoryBoundaryChanged, territory_id=airport.territory_id, boundary=outline)

    def _contract_ended(self, airport: Airport) -> Event:
        return self._told(
            e.ContractTerminated,
            site_id=airport.icao,
            contract_id=f"{airport.icao}-1",
            termination_date=self._at.date(),
            reason="end of term",
        )

    def _site_deleted(self, airport: Airport) -> Event:
        self._live.remove(airport)
        self._contacts = [(site, contact) for site, contact in self._contacts if site is not airport]
        self.expected.sites_deleted.add(airport.icao)
        return self._told(e.SiteDeleted, site_id=airport.icao, reason="closed")

    def _told(self, kind: type[Event], **values: Any) -> Event:
        """Make an event that will be in the log, and count it."""
        event = self._new(kind, **values)
        self.expected.events[event.event_type] += 1
        if event.entity_type == "site":
            self.expected.site_versions[event.entity_id] += 1
        return event

    def _new(self, kind: type[Event], **values: Any) -> Event:
        self._number += 1
        self._at = min(self._at + YEAR / len(self), BEGIN + YEAR)
        event_id = str(uuid5(NAMESPACE, str(self._number)))
        return kind(event_id=event_id, event_timestamp=self._at, source_system=SOURCE, **values)


def _values(airport: Airport) -> e.SiteValues:
    return e.SiteValues(
        name=airport.name,
        address=e.Address(city=airport.city or None, region=airport.state, country="US"),
        territory_id=airport.territory_id,
        facility_type="airport",
        location_coordinates=e.Coordinates(latitude=airport.latitude, longitude=airport.longitude),
        market_segment="commercial" if airport.iata else "general aviation",
    )
