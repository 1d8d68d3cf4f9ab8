"""What a run has really met, told by Postgres and by what stands between it and the workers."""

from collections import Counter
from collections.abc import Callable, Mapping

import asyncpg

from tests.chaos.cluster import Cluster
from tests.chaos.inflict import World
from tests.chaos.schedule import Fault
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


def effects(world: World, fault: Fault) -> int | None:
    """Return how often faults of this kind have met something until now; None where nobody counts that."""
    count = COUNTED.get(fault.kind)
    return None if count is None else count(world, fault)


async def marks(cluster: Cluster, workers: list[Worker], connection: asyncpg.Connection) -> dict[str, int]:
    """Count what the faults have met; of workers, what their last processes have."""
    verdicts = sum([await worker.verdicts() for worker in workers], Counter[str]())
    return {
        "batches refused by the fence": verdicts["fenced"],
        "found applied": verdicts["applied_before"],
        "transactions cut": _transactions_cut(cluster),
        "commits unanswered": _commits_unanswered(cluster),
        "writes refused by the disk": _writes_refused(cluster),
        "sites in the largest transaction": await connection.fetchval(SITES_AT_ONCE),
        "transactions that change sites in place": _said(cluster, IN_PLACE),
    }


def _transactions_cut(cluster: Cluster) -> int:
    return sum(ways.postgres.transactions_cut for ways in cluster.ways)


def _commits_unanswered(cluster: Cluster) -> int:
    return sum(ways.postgres.commits_unanswered for ways in cluster.ways)


def _writes_refused(cluster: Cluster) -> int:
    return _said(cluster, b"No space left on device")


def _said(cluster: Cluster, what: bytes) -> int:
    """Return how often Postgres's log says it."""
    return (cluster.folder / "logs" / "postgres.log").read_bytes().count(what)


def _answered(world: World, fault: Fault) -> int:
    """Return how often its worker was there to be told to end."""
    return len(world.workers[fault.target].answers)


COUNTED: Mapping[str, Callable[[World, Fault], int]] = {
    "worker_terminated": _answered,
    "worker_leaves": _answered,
    "postgres_cut": lambda world, _: _transactions_cut(world.cluster),
    "commit_unanswered": lambda world, _: _commits_unanswered(world.cluster),
    "disk_full": lambda world, _: _writes_refused(world.cluster),
    "sent_twice": lambda world, _: sum(producer.repeated for producer in world.producers),
    "sent_reordered": lambda world, _: sum(producer.reordered for producer in world.producers),
}
