"""The events that every contender reads: sites are created, then one field at a time changes."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from sitelog.streams._event import Event
from sitelog.streams.codec import Codec
from sitelog.streams.events import Address, Coordinates, SiteCreated, SiteUpdated, SiteValues

TOPIC: Final = "customer-sites-events"
SEED: Final = 20_250_101
"""The same arguments give the same changes in every run; only the event ids differ."""
BEGIN: Final = datetime(2025, 1, 1, tzinfo=UTC)
SEGMENTS: Final = ("airport", "hospitality", "municipal", "office", "retail")
FACILITIES: Final = ("garage", "lot", "valet", "shuttle")


class Site(NamedTuple):
    """What has to be in the read model at the end, `version` being the number of the site's events."""

    name: str
    parking_capacity: int
    facility_type: str
    market_segment: str
    version: int


class Message(NamedTuple):
    """One Kafka record."""

    key: bytes
    value: bytes


class Life:
    """Makes `events` events of `sites` sites, and knows what each site is after all of them."""

    def __init__(self, events: int, sites: int) -> None:
        if not 0 < sites <= events:
            raise ValueError(f"expected at least one site and at most one for each event, got {sites} of {events}")
        self.events = events
        self.sites: dict[str, Site] = {f"site-{number:06}": _new_site(number) for number in range(sites)}
        self._site_ids = list(self.sites)
        self._happened = 0
        self._random = random.Random(SEED)  # noqa: S311 - repeatable, not secret

    def messages(self) -> Iterator[Message]:
        """Return each event once, as bytes, in the order of its happening; `sites` moves along."""
        codec = Codec()
        for event in self.history():
            yield Message(event.entity_id.encode(), codec.encode(event))

    def history(self) -> Iterator[Event]:
        """Return each event once, in the order of its happening; `sites` moves along."""
        for site_id, site in self.sites.items():
            yield _created(site_id, site, self._happened)
            self._happened += 1
        while self._happened < self.events:
            yield self.change()

    def change(self) -> SiteUpdated:
        """Return one change more, of a site that exists by then."""
        site_id = self._random.choice(self._site_ids)
        number = self._happened
        self._happened += 1
        site = self.sites[site_id]
        field, value = self._new_value(site)
        old = SiteValues(**{field: getattr(site, field)}) if self._says_old(number) else None
        self.sites[site_id] = site._replace(**{field: value}, version=site.version + 1)
        return SiteUpdated(
            site_id=site_id,
            event_timestamp=BEGIN + timedelta(milliseconds=number),
            source_system="benchmark",
            changed_fields=[field],
            old_values=old,
            new_values=SiteValues(**{field: value}),
        )

    def _says_old(self, number: int) -> bool:
        """Every second change says what it replaces, as some producers do: it makes Sitelog look for conflicts."""
        return number % 2 == 1

    def _new_value(self, site: Site) -> tuple[str, Any]:
        match self._random.randrange(4):
            case 0:
                return "name", f"Parking {self._random.randrange(1_000_000)}"
            case 1:
                return "parking_capacity", self._random.randrange(10, 5_000)
            case 2:
                return "facility_type", _other(FACILITIES, site.facility_type)
            case _:
                return "market_segment", _other(SEGMENTS, site.market_segment)


def _other(choices: tuple[str, ...], current: str) -> str:
    return choices[(choices.index(current) + 1) % len(choices)]


def _new_site(number: int) -> Site:
    return Site(
        name=f"Parking {number}",
        parking_capacity=50 + number % 900,
        facility_type=FACILITIES[number % len(FACILITIES)],
        market_segment=SEGMENTS[number % len(SEGMENTS)],
        version=1,
    )


def _created(site_id: str, site: Site, number: int) -> SiteCreated:
    return SiteCreated(
        site_id=site_id,
        event_timestamp=BEGIN + timedelta(milliseconds=number),
        source_system="benchmark",
        site_data=SiteValues(
            name=site.name,
            address=Address(
                line1=f"{number % 300 + 1} Harbour Street",
                city="Baltimore",
                region="MD",
                postal_code=f"{21201 + number % 90}",
                country="US",
            ),
            territory_id=f"territory-{number % 50:02}",
            parking_capacity=site.parking_capacity,
            facility_type=site.facility_type,
            location_coordinates=Coordinates(
                latitude=39.0 + number % 500 / 1000, longitude=-76.6 - number % 300 / 1000
            ),
            market_segment=site.market_segment,
        ),
    )
