"""Which territory owned which site, from when until when.

Who owned a site at a time T is one query:

    SELECT territory_id FROM territory_assignments
    WHERE site_id = $1 AND valid_from <= $2 AND (valid_until IS NULL OR valid_until > $2)
"""

from datetime import datetime
from typing import NamedTuple

from sitelog.projections._projection import History
from sitelog.streams.events import SiteAssignedToTerritory, SiteCreated, SiteDeleted, SiteUpdated


class Assignment(NamedTuple):
    """A site belonged to a territory from `valid_from` until before `valid_until`; null is until now."""

    site_id: str
    valid_from: datetime
    valid_until: datetime | None
    territory_id: str
    reason: str | None
    approved_by: str | None


Assignments = tuple[Assignment, ...]

territory_assignments = History(
    name="territory_assignments",
    version=1,
    key=("site_id", "valid_from"),
    row=Assignment,
    indexes=[("territory_id", "valid_from")],
)


def cut(rows: Assignments, at: datetime) -> Assignments:
    """End the ranges at `at`: one that begins then or later never was, the one that holds it ends there."""
    return tuple(
        row._replace(valid_until=at) if row.valid_until is None or row.valid_until > at else row
        for row in rows
        if row.valid_from < at
    )


def reassign(rows: Assignments, site_id: str, territory_id: str | None, at: datetime) -> Assignments:
    """Let the site belong to this territory from `at` on, or to none."""
    if territory_id is None:
        return cut(rows, at)
    return (*cut(rows, at), Assignment(site_id, at, None, territory_id, None, None))


@territory_assignments.follows(SiteCreated)
def begin(rows: Assignments, event: SiteCreated) -> Assignments:
    """Begin with the territory that the site comes with; one that was there before ends what it had."""
    return reassign(rows, event.site_id, event.site_data.territory_id, event.event_timestamp)


@territory_assignments.follows(SiteUpdated, changed="territory_id")
def move(rows: Assignments, event: SiteUpdated) -> Assignments:
    """Move to another territory, or to none."""
    territory_id = event.new_values.territory_id if event.new_values else None
    return reassign(rows, event.site_id, territory_id, event.event_timestamp)


@territory_assignments.follows(SiteAssignedToTerritory)
def assign(rows: Assignments, event: SiteAssignedToTerritory) -> Assignments:
    """Assign from the time on that the event names. One in the past replaces what was known after it."""
    at = event.effective_at or event.event_timestamp
    return (
        *cut(rows, at),
        Assignment(event.site_id, at, None, event.territory_id, event.reason, event.approved_by),
    )


@territory_assignments.follows(SiteDeleted)
def end(rows: Assignments, event: SiteDeleted) -> Assignments:
    """End with the site."""
    return cut(rows, event.event_timestamp)
