"""The workers of a run: where each is, how it is configured, and that none of them is left."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import yaml

from sitelog.deploy._configuration import configuration
from sitelog.deploy._state import write_private
from tests.chaos.cluster import Cluster
from tests.chaos.schedule import SLOTS, Crew
from tests.chaos.worker import Worker

# Every fault is over sooner, and meets more, where a session is as short as brokers allow.
WORKER = {"session_timeout_seconds": 6, "heartbeat_interval_seconds": 1, "web_port": 0}


@asynccontextmanager
async def open_crew(cluster: Cluster, crew: Crew) -> AsyncIterator[list[Worker]]:
    """Every worker's place, nobody there yet; whoever runs in the end is ended politely."""
    workers = [Worker(cluster.folder, f"worker-{slot}", _configure(cluster, crew, slot)) for slot in range(SLOTS)]
    try:
        yield workers
    finally:
        await asyncio.gather(*(worker.close() for worker in workers))


def _configure(cluster: Cluster, crew: Crew, slot: int) -> Path:
    ways = cluster.ways[slot]
    values = configuration(cluster.state)
    values["kafka_config"]["bootstrap_servers"] = ways.bootstrap_servers
    values["database_config"]["primary"]["port"] = ways.postgres.port
    values["database_config"]["primary"]["connection_pool"] |= {"min_connections": 2, "max_connections": 5}
    values["worker"] = WORKER | {"batch_records_max": crew.batches[slot]}
    if crew.static[slot]:
        values["worker"]["instance_id"] = f"worker-{slot}"
    path = cluster.folder / f"worker-{slot}.yaml"
    write_private(path, yaml.safe_dump(values, sort_keys=False))
    return path
