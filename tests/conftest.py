"""Real Kafka and real Postgres for the tests, started by the same functions as `sitelog up`."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from sitelog.deploy._configuration import configuration
from sitelog.deploy._database import drop_database, ensure_database
from sitelog.deploy._state import StackState, new_state, write_state
from sitelog.deploy.kafka import start_brokers
from sitelog.deploy.postgres import start_postgres
from sitelog.projections._install import install
from sitelog.streams.settings import Settings
from sitelog.streams.topics import create_topics

TOPIC_SECONDS_MAX = 20

ROOT = Path(__file__).parents[1]


def pytest_configure() -> None:
    """Prepare the process, and refuse what can't be tested."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell without job control starts what is in the background so, and every child inherits it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    refuse_stale()


def refuse_stale() -> None:
    """Refuse to test what isn't the source: a compiled module hides the file that it was made of."""
    stale = [
        str(source.relative_to(ROOT))
        for package in ("streams", "projections")
        for compiled in (ROOT / package).glob("*.so")
        if (source := compiled.with_name(f"{compiled.name.partition('.')[0]}.py")).stat().st_mtime
        > compiled.stat().st_mtime
    ]
    if stale:
        pytest.exit(f"changed since they were compiled: {', '.join(sorted(stale))}. Run `make setup`", returncode=2)


@dataclass(frozen=True)
class Services:
    """One session's folder and the ports that its Kafka and Postgres have, once they are started."""

    folder: Path
    state: StackState

    def settings(self, database: str) -> Settings:
        return Settings.model_validate(configuration(self.state, database=database))


@contextmanager
def watched_folder() -> Iterator[Path]:
    """A folder whose services end, and which vanishes, with the block or with this process."""
    folder = Path(tempfile.mkdtemp(prefix="sitelog-test-"))
    watchdog = Path(__file__).with_name("watchdog.py")
    with subprocess.Popen(
        [sys.executable, str(watchdog), str(folder)], stdin=subprocess.PIPE, start_new_session=True
    ) as process:
        # Popen's exit closes the pipe, which is the signal, and waits for the watchdog to end.
        yield folder
    assert process.returncode == 0


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    with watched_folder() as folder:
        state = new_state(brokers=1)
        write_state(folder, state)
        yield Services(folder, state)


@pytest.fixture(scope="session")
async def kafka(services: Services) -> list[str]:
    """The bootstrap servers of one broker, the same for the whole session."""
    await start_brokers(services.folder, services.state, os.environ, print)
    return services.state.bootstrap_servers


@pytest.fixture(scope="session")
async def postgres(services: Services) -> StackState:
    """One server for the whole session; `connect_as_superuser(postgres)` may do everything there."""
    await start_postgres(services.folder, services.state, os.environ)
    return services.state


@pytest.fixture(scope="session")
async def database_template(services: Services, postgres: StackState) -> str:
    name = "sitelog_template"
    await ensure_database(postgres, name=name)
    await install(services.settings(name))
    return name


@pytest.fixture
async def empty_database(services: Services, postgres: StackState) -> AsyncIterator[Settings]:
    """Settings whose database is new and holds nothing at all."""
    name = f"empty_{uuid.uuid4().hex}"
    await ensure_database(postgres, name=name)
    yield services.settings(name)
    await drop_database(postgres, name)


@pytest.fixture
async def database(services: Services, postgres: StackState, database_template: str) -> AsyncIterator[Settings]:
    """Settings whose database is this test's own, with the schema installed. Kafka need not be running."""
    name = f"test_{uuid.uuid4().hex}"
    await ensure_database(postgres, name=name, template=database_template)
    yield services.settings(name)
    await drop_database(postgres, name)


@pytest.fixture
async def settings(database: Settings, kafka: list[str]) -> Settings:
    """Settings of a Kafka that runs and of a database of this test's own; the topics are the session's."""
    assert database.kafka_config.bootstrap_servers == kafka
    await create_topics(database)
    return database


@pytest.fixture
async def fresh_topics(settings: Settings) -> Settings:
    """The same settings, with both topics new and empty: offsets start at 0."""
    await recreate_topics(settings)
    return settings


async def recreate_topics(settings: Settings) -> None:
    """Delete the configured topics and create them again; returns when both is visible."""
    names = sorted(settings.kafka_config.topics)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_config.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_topics(names)
        async with asyncio.timeout(TOPIC_SECONDS_MAX):
            while set(names) & set(await admin.list_topics()):  # noqa: ASYNC110 - Kafka tells nobody
                await asyncio.sleep(0.01)
    finally:
        await admin.close()
    await create_topics(settings)
