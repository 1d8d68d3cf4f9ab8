"""Holds what the database has against what the demo appended."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sitelog.deploy._demo_story import SENT_TWICE, UNKNOWN_SITE, Expected

EVENTS: Final = "SELECT event_type, count(*) FROM sitelog.event_log GROUP BY event_type"
IDS: Final = "SELECT count(*) - count(DISTINCT event_id) FROM sitelog.event_log"
HOLES: Final = """
SELECT coalesce(sum(top - events), 0)::bigint
FROM (SELECT max(log_seq) AS top, count(*) AS events FROM sitelog.event_log GROUP BY log_partition) AS p
"""
STOPPED: Final = "SELECT count(DISTINCT entity_id) FROM sitelog.parked_event WHERE closed_at IS NULL"
WAITING: Final = """
SELECT count(*) > 0 FROM sitelog.parked_event WHERE entity_id = $1 AND status = 'waiting' AND closed_at IS NULL
"""
VERSIONS: Final = "SELECT site_id, version FROM customer_sites"
APPLIED: Final = (
    "SELECT coalesce(sum(next_offset), 0)::bigint FROM sitelog.consumer_position WHERE consumer = 'projector'"
)


@dataclass(frozen=True, slots=True)
class Count:
    """One count: what was appended asks for `expected`, the database has `found`."""

    what: str
    expected: int
    found: int

    @property
    def right(self) -> bool:
        """Whether the two agree."""
        return self.expected == self.found


async def check(connection: Any, expected: Expected) -> Sequence[Count]:
    """Count everything that the demo appended. Assumes that the log holds the demo's events and no others."""
    by_type = {row[0]: row[1] for row in await connection.fetch(EVENTS)}
    names = sorted(expected.events | by_type.keys())
    counts = [Count(f"{name} in the log", expected.events[name], by_type.get(name, 0)) for name in names]

    async def count(what: str, wanted: int, sql: str, *args: object) -> None:
        counts.append(Count(what, wanted, int(await connection.fetchval(sql, *args))))

    await count(f"events in the log twice ({SENT_TWICE} were sent twice)", 0, IDS)
    await count("holes in the log's numbers", 0, HOLES)
    await count("sites", len(expected.site_versions), "SELECT count(*) FROM customer_sites")
    deleted = "SELECT count(*) FROM customer_sites WHERE deleted_at IS NOT NULL"
    await count("of these deleted", len(expected.sites_deleted), deleted)
    await count("contracts", len(expected.contracts), "SELECT count(*) FROM contracts")
    await count("territories", expected.events["territory_created"], "SELECT count(*) FROM territories")
    await count("territory assignments", expected.assignments, "SELECT count(*) FROM territory_assignments")
    await count("contacts", len(expected.contacts), "SELECT count(*) FROM contacts")
    await count("months of performance", len(expected.periods), "SELECT count(*) FROM performance_history")
    await count("conflicts", expected.conflicts, "SELECT count(*) FROM sitelog.conflict")
    await count("entities stopped", 1, STOPPED)
    await count(f"of these waiting: {UNKNOWN_SITE}", 1, WAITING, UNKNOWN_SITE)
    versions = {row[0]: row[1] for row in await connection.fetch(VERSIONS)}
    wrong = sum(1 for site, version in expected.site_versions.items() if versions.get(site) != version)
    counts.append(Count("sites whose version isn't the number of their events", 0, wrong))
    return counts
