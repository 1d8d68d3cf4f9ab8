"""What each territory is today."""

from datetime import datetime
from typing import NamedTuple

from sitelog.projections._columns import Json
from sitelog.projections._projection import Change, Field, Projection, field_of
from sitelog.streams.events import (
    TerritoryBoundaryChanged,
    TerritoryCreated,
    TerritoryDeleted,
    TerritoryUpdated,
    TerritoryValues,
)


class Territory(NamedTuple):
    """One territory; its boundary is a GeoJSON object."""

    territory_id: str
    name: str | None
    code: str | None
    region: str | None
    manager: str | None
    boundary: Json | None
    created_at: datetime
    deleted_at: datetime | None


territories = Projection(name="territories", version=1, key="territory_id", row=Territory, tombstone="deleted_at")

FIELDS = {
    "name": field_of("name"),
    "code": field_of("code"),
    "region": field_of("region"),
    "manager": field_of("manager"),
    "boundary": Field(("boundary",), lambda values: (values.boundary,)),
}


@territories.creates(TerritoryCreated)
def create(event: TerritoryCreated) -> Territory:
    """Take over all that the producer knows."""
    values = event.territory_data
    boundary = None if values.boundary is None else Json(values.boundary)
    return Territory(
        event.territory_id,
        values.name,
        values.code,
        values.region,
        values.manager,
        boundary,
        event.event_timestamp,
        None,
    )


territories.merges(TerritoryUpdated, FIELDS)


def boundary_change(event: TerritoryBoundaryChanged) -> Change:
    """See a new boundary as a change of one field."""
    before = event.old_boundary
    return Change(
        ("boundary",),
        None if before is None else TerritoryValues.model_construct(boundary=before),
        TerritoryValues.model_construct(boundary=event.boundary),
    )


territories.merges(TerritoryBoundaryChanged, FIELDS, change=boundary_change)


@territories.changes(TerritoryDeleted)
def delete(territory: Territory, event: TerritoryDeleted) -> Territory:
    """Keep the row: assignments of the past refer to it."""
    return territory._replace(deleted_at=event.event_timestamp)
