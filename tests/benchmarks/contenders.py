"""Who takes part: how each is started, what it writes, and how one sees what it has committed."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Contender:
    """One way of getting the topic into Postgres.

    `module` is run with `arguments` and `--config FILE`. `committed_sql` gives the number of events whose
    effect is visible, `sites_sql` each site as `Life.sites` has it, `log_sql` the number of events in the log.
    """

    name: str
    title: str
    writes: str
    module: str
    arguments: tuple[str, ...]
    committed_sql: str
    sites_sql: str
    log_sql: str | None = None


_POSITIONS: Final = "SELECT coalesce(sum(next_offset), 0)::bigint FROM sitelog.consumer_position"
_LOG: Final = "SELECT count(*) FROM sitelog.event_log"
_SITES: Final = """
SELECT site_id, site_name, parking_capacity, facility_type, market_segment, version
FROM public.customer_sites
"""

SITELOG: Final = Contender(
    name="sitelog",
    title="Sitelog",
    writes="log, two read models with field versions, conflicts, position",
    module="sitelog.cli",
    arguments=("worker", "projector"),
    committed_sql=_POSITIONS,
    sites_sql=_SITES,
    log_sql=_LOG,
)

CONTENDERS: Final = (SITELOG,)
