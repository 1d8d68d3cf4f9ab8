"""Which sites are open today, and since when."""

from datetime import datetime
from typing import NamedTuple

from sitelog.projections._projection import History
from sitelog.streams.events import SiteCreated, SiteDeleted


class OpenSite(NamedTuple):
    """One site that is open."""

    site_id: str
    name: str | None
    open_since: datetime


open_sites = History(name="open_sites", version=1, key="site_id", row=OpenSite, indexes=[("open_since",)])


@open_sites.follows(SiteCreated)
def opened(_: tuple[OpenSite, ...], event: SiteCreated) -> tuple[OpenSite, ...]:
    """Begin the site's row, whatever there was."""
    return (OpenSite(event.site_id, event.site_data.name, event.event_timestamp),)


@open_sites.follows(SiteDeleted)
def closed(_: tuple[OpenSite, ...], __: SiteDeleted) -> tuple[OpenSite, ...]:
    """Leave no row."""
    return ()
