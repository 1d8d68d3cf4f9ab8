"""How many bytes an event and a site take in Postgres, and what writing them costs it: the inputs of docs/scale.md.

    python -m tests.benchmarks.sizes --sites 20000 --events 200000

No Kafka: the events go straight into the worker's transaction, in one process. Bytes don't depend on the machine, and
processor time hardly on what else it does; nothing here is a rate.
"""

import asyncio
import os
from datetime import date
from decimal import Decimal
from typing import Annotated, Any

import cramjam
import psutil
import typer

from sitelog.deploy._configuration import configuration
from sitelog.deploy._database import ensure_database
from sitelog.deploy._state import StackState, new_state, write_state
from sitelog.deploy.postgres import connect_as_superuser, postgres_daemon, start_postgres
from sitelog.projections._install import install
from sitelog.streams.codec import Codec
from sitelog.streams.events import PerformanceRecorded, PerformanceValues
from sitelog.streams.settings import Settings
from tests.benchmarks.events import Life, Message
from tests.benchmarks.machine import describe
from tests.conftest import watched_folder
from tests.partition import Partition, open_partition

BATCH = 2_000
IDS = 300_000
DATABASE = "sizes"

TABLES = ["event_log", "customer_sites_v1", "territory_assignments_v1", "performance_history_v1"]
SIZES = "SELECT relname, pg_total_relation_size(oid) FROM pg_class WHERE relkind = 'r' AND relname = ANY($1)"


class Meter:
    """What Postgres has written and computed since the last look."""

    def __init__(self, connection: Any, server: psutil.Process) -> None:
        self._connection = connection
        self._server = server

    async def start(self) -> None:
        # Each page's first change after a checkpoint is logged whole: one checkpoint a phase.
        await self._connection.execute("CHECKPOINT")
        self._lsn = await self._connection.fetchval("SELECT pg_current_wal_insert_lsn()")
        self._cpu = self._cpu_seconds()

    async def per_event(self, events: int) -> tuple[float, float]:
        """Return bytes of write-ahead log for an event, and processor seconds for a million, checkpoint included."""
        wal = await self._connection.fetchval("SELECT pg_current_wal_insert_lsn() - $1::pg_lsn", self._lsn)
        await self._connection.execute("CHECKPOINT")
        return float(wal) / events, (self._cpu_seconds() - self._cpu) * 1e6 / events

    def _cpu_seconds(self) -> float:
        processes = [self._server, *self._server.children()]
        return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


async def feed(partition: Partition, messages: list[Message]) -> None:
    """Apply messages in batches, each in one transaction."""
    for first in range(0, len(messages), BATCH):
        batch = messages[first : first + BATCH]
        outcome = await partition.feed(*((message.key.decode(), message.value) for message in batch))
        if outcome.events != len(batch):
            raise RuntimeError(f"expected {len(batch)} events to be applied, got {outcome}")


def compressed(messages: list[Message]) -> float:
    """Return the bytes of one message in a batch that snappy has compressed, without what Kafka adds."""
    values = [
        b"".join(message.key + message.value for message in messages[at : at + 1000])
        for at in range(0, len(messages), 1000)
    ]
    return sum(len(bytes(cramjam.snappy.compress_raw(value))) for value in values) / len(messages)


def performance(site_ids: list[str]) -> list[Message]:
    """Record a month of each site: every figure, four weeks' occupancy and twelve months' pattern."""
    codec = Codec()
    metrics = PerformanceValues(
        monthly_revenue=Decimal("48210.55"),
        currency="USD",
        occupancy_rates=(0.61, 0.58, 0.72, 0.66),
        seasonal_patterns=tuple(round(0.8 + month / 30, 2) for month in range(12)),
        growth_trends=0.031,
        labor_productivity=14.2,
        cost_efficiency=0.87,
        service_quality=0.93,
        customer_satisfaction=4.4,
    )
    begin, end = date(2026, 10, 1), date(2026, 10, 31)
    events = (PerformanceRecorded(site_id=one, period_start=begin, period_end=end, metrics=metrics) for one in site_ids)
    return [Message(event.entity_id.encode(), codec.encode(event)) for event in events]


async def measure(state: StackState, settings: Settings, server: psutil.Process, life: Life) -> dict[str, float]:
    """Create the sites, change them, record a month of each, and return the inputs by their names."""
    connection = await connect_as_superuser(state, DATABASE)
    meter = Meter(connection, server)
    messages, sites = list(life.messages()), len(life.sites)
    inputs = {"kafka_bytes_per_event": compressed(messages)}
    kinds = {"creation": messages[:sites], "change": messages[sites:], "performance": performance(list(life.sites))}
    before: dict[str, int] = dict.fromkeys(TABLES, 0)
    async with open_partition(settings) as partition:
        for kind, part in kinds.items():
            await meter.start()
            await feed(partition, part)
            wal, cpu = await meter.per_event(len(part))
            after = await sizes(connection)
            inputs[f"wal_bytes_per_{kind}"], inputs[f"postgres_cpu_seconds_per_million_{kind}"] = wal, cpu
            inputs[f"log_bytes_per_{kind}"] = (after["event_log"] - before["event_log"]) / len(part)
            before = after
    for name, function in (("version_7", "uuidv7"), ("random", "gen_random_uuid")):
        index, wal = await ids(connection, meter, function)
        inputs[f"index_bytes_per_{name}_id"], inputs[f"wal_bytes_per_{name}_id"] = index, wal
    inputs["read_model_bytes_per_site"] = (after["customer_sites_v1"] + after["territory_assignments_v1"]) / sites
    inputs["read_model_bytes_per_performance"] = after["performance_history_v1"] / sites
    await connection.close()
    return inputs


async def sizes(connection: Any) -> dict[str, int]:
    """Return the bytes of each table with its indexes."""
    return dict(await connection.fetch(SIZES, TABLES))


async def ids(connection: Any, meter: Meter, function: str) -> tuple[float, float]:
    """Return the bytes of index and of write-ahead log for each id that this SQL function makes."""
    await connection.execute("CREATE TABLE id (id uuid); CREATE INDEX id_idx ON id (id)")
    await meter.start()
    for _ in range(0, IDS, BATCH):
        await connection.execute(f"INSERT INTO id SELECT {function}() FROM generate_series(1, {BATCH})")  # noqa: S608 - ours
    wal, _ = await meter.per_event(IDS)
    size = await connection.fetchval("SELECT pg_relation_size('id_idx')")
    await connection.execute("DROP TABLE id")
    return size / IDS, wal


async def run(life: Life) -> tuple[dict[str, float], dict[str, Any]]:
    """Measure in a Postgres of its own, which ends and vanishes with this process."""
    with watched_folder() as folder:
        state = new_state(brokers=1)
        write_state(folder, state)
        await start_postgres(folder, state, os.environ)
        await ensure_database(state, name=DATABASE)
        settings = Settings.model_validate(configuration(state, database=DATABASE))
        await install(settings)
        server = postgres_daemon(folder).running()
        if server is None:
            raise RuntimeError("expected Postgres to run, and it has ended")
        connection = await connect_as_superuser(state, DATABASE)
        machine = await describe(connection)
        await connection.close()
        return await measure(state, settings, psutil.Process(server.pid), life), machine


def main(
    sites: Annotated[int, typer.Option(help="Sites to create.")] = 20_000,
    events: Annotated[int, typer.Option(help="Events altogether: creations, then changes.")] = 200_000,
) -> None:
    """Print the inputs as rows of docs/scale.md, and what they were measured on."""
    inputs, machine = asyncio.run(run(Life(events, sites)))
    for name, value in sorted(inputs.items()):
        typer.echo(f"| `{name}` | {value:,.0f} |")
    typer.echo(", ".join(f"{name} {value}" for name, value in machine.items()))


if __name__ == "__main__":
    typer.run(main)
