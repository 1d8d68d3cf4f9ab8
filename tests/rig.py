"""What a test of a running worker needs: topics and a database of its own, a ledger, and workers on them."""

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import yaml

from sitelog.deploy._configuration import configuration
from sitelog.deploy._database import drop_database, ensure_database
from sitelog.deploy._state import write_private
from sitelog.deploy.postgres import connect_as_superuser
from sitelog.streams.topics import create_topics
from tests.conftest import Services, recreate_topics
from tests.ledger import Ledger, open_ledger
from tests.oracle import compare
from tests.until import until
from tests.worker_process import WorkerProcess

# Fail-over as quick as brokers allow, small batches, and a health server on any free port.
WORKER = {
    "session_timeout_seconds": 6,
    "heartbeat_interval_seconds": 1,
    "batch_records_max": 500,
    "web_port": 0,
}
SESSION_SECONDS = 6.0
LINES_SHOWN = 40


def config_values(services: Services, database: str, **worker: Any) -> dict[str, Any]:
    """Return a whole configuration, its worker's settings changed as given."""
    values = configuration(services.state, database=database)
    values["database_config"]["primary"]["connection_pool"] |= {"min_connections": 2, "max_connections": 5}
    return {**values, "worker": WORKER | worker}


def write_config(services: Services, values: dict[str, Any]) -> Path:
    """Write a configuration file, and return its path."""
    path = services.folder / f"{uuid.uuid4().hex}.yaml"
    write_private(path, yaml.safe_dump(values, sort_keys=False))
    return path


class Rig:
    """`connection` is a superuser's, in the test's own database."""

    connection: asyncpg.Connection
    ledger: Ledger

    def __init__(self, services: Services, database: str) -> None:
        self.services = services
        self.database = database
        self.settings = services.settings(database)
        self._stack = AsyncExitStack()
        self.workers: list[WorkerProcess] = []

    async def connect(self) -> None:
        """Open the connection, again after Postgres was away."""
        self.connection = await self.another_connection()

    async def another_connection(self) -> asyncpg.Connection:
        """Open one more connection like `connection`."""
        connection = await connect_as_superuser(self.services.state, self.database)
        self._stack.push_async_callback(connection.close)
        return connection

    async def worker(
        self, *, postgres_port: int | None = None, environ: Mapping[str, str] | None = None, **settings: Any
    ) -> WorkerProcess:
        """Start a worker and wait until it is ready; it is stopped at the end at the latest."""
        worker = await self.launch(postgres_port=postgres_port, environ=environ, **settings)
        await worker.ready()
        return worker

    async def launch(
        self, *, postgres_port: int | None = None, environ: Mapping[str, str] | None = None, **settings: Any
    ) -> WorkerProcess:
        """Start a worker, and return at once."""
        values = config_values(self.services, self.database, **settings)
        values["database_config"]["primary"]["port"] = postgres_port or self.services.state.postgres_port
        config = write_config(self.services, values)
        worker = WorkerProcess(self.services.folder, f"{self.database}-{len(self.workers)}", config)
        self.workers.append(worker)
        self._stack.push_async_callback(worker.stop)
        await worker.start(environ)
        return worker

    async def log_rows(self) -> int:
        """Return how many events the log has."""
        count: int = await self.connection.fetchval("SELECT count(*) FROM sitelog.event_log")
        return count

    async def progress(self) -> None:
        """Wait until the log has grown."""
        before = await self.log_rows()

        async def has_grown() -> bool:
            return await self.log_rows() > before

        await until("progress", has_grown, seconds=60)

    async def has_owners(self, *workers: WorkerProcess) -> bool:
        """Tell whether these workers have claimed all partitions, and each of them some."""
        rows = await self.connection.fetch("SELECT DISTINCT owner FROM sitelog.consumer_position")
        owners = {int(owner.rpartition(":")[2]) for (owner,) in rows}
        return owners == {worker.process.pid for worker in workers}

    async def applied(self, seconds: float = 30.0) -> None:
        """Wait until every event that Kafka has acknowledged is applied."""
        await until("all events to be applied", lambda: self.ledger.is_applied(self.connection), seconds=seconds)

    def show_workers(self) -> None:
        """Print what the workers said, for whoever reads why a test has failed."""
        for worker in self.workers:
            print(f"--- {worker.output.name}", *worker.text().splitlines()[-LINES_SHOWN:], sep="\n")  # noqa: T201

    async def check(self) -> None:
        """Wait for every event, and hold log and read models against what was appended."""
        await self.ledger.acknowledged()
        await self.applied()
        await self.ledger.check_log(self.connection)
        assert await compare(self.connection, self.ledger.folded()) == []


@asynccontextmanager
async def open_rig(services: Services, template: str) -> AsyncIterator[Rig]:
    """A rig with new topics and a new database, a copy of `template`; both services must be running."""
    rig = Rig(services, f"rig_{uuid.uuid4().hex}")
    await ensure_database(services.state, name=rig.database, template=template)
    await create_topics(rig.settings)
    await recreate_topics(rig.settings)
    async with rig._stack, open_ledger(rig.settings) as rig.ledger:
        await rig.connect()
        yield rig
        rig.show_workers()
    await drop_database(services.state, rig.database)
