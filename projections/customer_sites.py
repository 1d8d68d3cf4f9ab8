"""What each site is today: its name, place, capacity, territory and contract."""

from datetime import datetime
from typing import NamedTuple

from sitelog.projections._columns import Json
from sitelog.projections._json import json_of
from sitelog.projections._projection import Change, Field, Projection, field_of
from sitelog.streams._event import Event
from sitelog.streams.events import (
    ContactAdded,
    ContactChanged,
    ContactRemoved,
    ContractCreated,
    ContractTerminated,
    ContractUpdated,
    PerformanceRecorded,
    SiteAssignedToTerritory,
    SiteCreated,
    SiteDeleted,
    SiteUpdated,
    SiteValues,
)


class Site(NamedTuple):
    """One site. A field that nobody has given is null."""

    site_id: str
    site_name: str | None
    address_line1: str | None
    address_line2: str | None
    city: str | None
    region: str | None
    postal_code: str | None
    country: str | None
    latitude: float | None
    longitude: float | None
    territory_id: str | None
    contract_id: str | None
    parking_capacity: int | None
    operating_hours: Json | None
    facility_type: str | None
    market_segment: str | None
    created_at: datetime
    deleted_at: datetime | None


customer_sites = Projection(
    name="customer_sites",
    version=1,
    key="site_id",
    row=Site,
    tombstone="deleted_at",
    indexes=[("territory_id",)],
)


def address(values: SiteValues) -> tuple[str | None, ...]:
    """Return the six address columns."""
    a = values.address
    return (a.line1, a.line2, a.city, a.region, a.postal_code, a.country) if a else (None,) * 6


def coordinates(values: SiteValues) -> tuple[float | None, float | None]:
    """Return latitude and longitude in degrees."""
    place = values.location_coordinates
    return (place.latitude, place.longitude) if place else (None, None)


FIELDS = {
    "name": field_of("site_name", "name"),
    "address": Field(("address_line1", "address_line2", "city", "region", "postal_code", "country"), address),
    "territory_id": field_of("territory_id"),
    "contract_info": Field(
        ("contract_id",), lambda values: (values.contract_info.contract_id if values.contract_info else None,)
    ),
    "parking_capacity": field_of("parking_capacity"),
    "operating_hours": Field(("operating_hours",), lambda values: (json_of(values.operating_hours),)),
    "facility_type": field_of("facility_type"),
    "location_coordinates": Field(("latitude", "longitude"), coordinates),
    "market_segment": field_of("market_segment"),
}


@customer_sites.creates(SiteCreated)
def create(event: SiteCreated) -> Site:
    """Take over all that the producer knows."""
    values = event.site_data
    columns = {
        column: value
        for field in FIELDS.values()
        for column, value in zip(field.columns, field.of(values), strict=True)
    }
    return Site(site_id=event.site_id, created_at=event.event_timestamp, deleted_at=None, **columns)


customer_sites.merges(SiteUpdated, FIELDS)


def assignment(event: SiteAssignedToTerritory) -> Change:
    """See an assignment as a change of one field."""
    before = event.previous_territory_id
    return Change(
        ("territory_id",),
        None if before is None else SiteValues.model_construct(territory_id=before),
        SiteValues.model_construct(territory_id=event.territory_id),
    )


customer_sites.merges(SiteAssignedToTerritory, FIELDS, change=assignment)


@customer_sites.changes(SiteDeleted)
def delete(site: Site, event: SiteDeleted) -> Site:
    """Keep the row: what refers to the site must still find it."""
    return site._replace(deleted_at=event.event_timestamp)


@customer_sites.changes(ContractCreated)
def contract(site: Site, event: ContractCreated) -> Site:
    """Name the site's newest contract."""
    return site._replace(contract_id=event.contract_id)


@customer_sites.changes(
    ContractUpdated, ContractTerminated, ContactAdded, ContactChanged, ContactRemoved, PerformanceRecorded
)
def count(site: Site, _: Event) -> Site:
    """Count the event: a site's version is the number of its events, and each of them needs the site to exist."""
    return site
