"""The benchmark's own Kafka and Postgres, and a fresh database for every run."""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from sitelog.deploy._configuration import configuration
from sitelog.deploy._daemon import Daemon
from sitelog.deploy._database import drop_database, ensure_database
from sitelog.deploy._state import StackState, new_state, write_private, write_state
from sitelog.deploy.kafka import start_brokers
from sitelog.deploy.postgres import connect_as_superuser, start_postgres
from sitelog.projections._install import install
from sitelog.streams.settings import Settings
from sitelog.streams.topics import create_topics
from tests.conftest import watched_folder

TEMPLATE: Final = "bench_template"


@dataclass(frozen=True)
class Database:
    """One run's own database: `config` is the file that the contender is started with."""

    name: str
    settings: Settings
    config: Path


@dataclass(frozen=True)
class Services:
    """Where everything of this benchmark runs; it ends and vanishes with the benchmark, however that ends."""

    folder: Path
    state: StackState

    def settings(self, database: str = TEMPLATE) -> Settings:
        return Settings.model_validate(configuration(self.state, database=database))

    def daemon(self, name: str) -> Daemon:
        """A process to start; the folder's watchdog ends it should the benchmark be killed."""
        return Daemon(self.folder, name)

    async def connect(self, database: str) -> Any:
        return await connect_as_superuser(self.state, database)

    @asynccontextmanager
    async def fresh_database(self, prefix: str) -> AsyncIterator[Database]:
        """A database with Sitelog's schema in it, empty, and the server's own chores done before it is used."""
        name = f"bench_{prefix}_{uuid.uuid4().hex[:8]}"
        await ensure_database(self.state, name=name, template=TEMPLATE)
        config = self.folder / f"{name}.yaml"
        write_private(config, yaml.safe_dump(configuration(self.state, database=name)))
        connection = await self.connect("postgres")
        # Otherwise the one before would leave its dirty pages for this one to write.
        await connection.execute("CHECKPOINT")
        await connection.close()
        yield Database(name, self.settings(name), config)
        await drop_database(self.state, name)


@asynccontextmanager
async def services() -> AsyncIterator[Services]:
    """Start one broker and one Postgres as `sitelog up` does, with the topics and a template database."""
    with watched_folder() as folder:
        state = new_state(brokers=1)
        write_state(folder, state)
        ours = Services(folder, state)
        await start_brokers(folder, state, os.environ, print)
        await start_postgres(folder, state, os.environ)
        await ensure_database(state, name=TEMPLATE)
        await install(ours.settings())
        await create_topics(ours.settings())
        yield ours
