"""What a run has really met, told by Postgres and by what stands between it and the workers."""

from collections import Counter

import asyncpg

from tests.chaos.cluster import Cluster
from tests.chaos.worker import Worker

# From 200 rows on a transaction changes those that there are through a temporary table of this name.
IN_PLACE = b"statement: CREATE TEMPORARY TABLE IF NOT EXISTS change_customer_sites_v1"

# A transaction's rows have its number for ever, also where they are frozen.
SITES_AT_ONCE = """
SELECT coalesce(max(t.sites), 0)
FROM (
    SELECT count(DISTINCT l.entity_id) AS sites
    FROM sitelog.event_log AS l
    JOIN sitelog.log_partition AS p USING (log_partition)
    WHERE p.topic = 'customer-sites-events'
    GROUP BY l.xmin::text
) AS t
"""


async def marks(cluster: Cluster, workers: list[Worker], connection: asyncpg.Connection) -> dict[str, int]:
    """Count what the faults have met; of workers, what their last processes have."""
    verdicts = sum([await worker.verdicts() for worker in workers], Counter[str]())
    return {
        "batches refused by the fence": verdicts["fenced"],
        "found applied": verdicts["applied_before"],
        "transactions cut": sum(ways.postgres.transactions_cut for ways in cluster.ways),
        "commits unanswered": sum(ways.postgres.commits_unanswered for ways in cluster.ways),
        "writes refused by the disk": said(cluster, b"No space left on device"),
        "sites in the largest transaction": await connection.fetchval(SITES_AT_ONCE),
        "transactions that change sites in place": said(cluster, IN_PLACE),
    }


def said(cluster: Cluster, what: bytes) -> int:
    """Return how often Postgres's log says it."""
    return (cluster.folder / "logs" / "postgres.log").read_bytes().count(what)
