"""A worker that can't work says so in one line, with what to do, and ends with a code that means something."""

import asyncio
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from sitelog.deploy._database import drop_database, ensure_database
from sitelog.deploy._ports import LOOPBACK
from sitelog.deploy._state import StackState
from sitelog.deploy.postgres import connect_as_superuser
from sitelog.streams.topics import create_topics
from tests.commit_proxy import open_for_connections
from tests.conftest import Services
from tests.foreign_topic import make_foreign_topic
from tests.ports import CLOSED_PORT
from tests.rig import config_values, write_config
from tests.until import until
from tests.worker_process import WorkerProcess

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kafka")]

EXIT_USAGE, EXIT_UNAVAILABLE, EXIT_FAILED, EXIT_TOPICS = 2, 69, 70, 79

CUT_OFF = """
SELECT count(pg_terminate_backend(pid))
FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'sitelog projector' AND wait_event_type = 'Lock'
"""

Refusal = Callable[..., Awaitable[str]]


@pytest.fixture(scope="module")
async def database_name(services: Services, postgres: StackState, database_template: str) -> AsyncIterator[str]:
    """A database that no test here changes."""
    name = f"surroundings_{uuid.uuid4().hex}"
    await ensure_database(postgres, name=name, template=database_template)
    await create_topics(services.settings(name))
    yield name
    await drop_database(postgres, name)


@pytest.fixture
async def own_database(postgres: StackState, database_template: str) -> AsyncIterator[str]:
    """A database that the test may spoil."""
    name = f"spoilt_{uuid.uuid4().hex}"
    await ensure_database(postgres, name=name, template=database_template)
    yield name
    await drop_database(postgres, name)


@pytest.fixture
def refusal(services: Services) -> Refusal:
    """Start a worker, or another command that checks the same, and return the one line that it ends with."""

    async def run(values: dict[str, Any], exit_code: int, command: str = "worker projector") -> str:
        config = write_config(services, values)
        worker = WorkerProcess(services.folder, f"refused-{uuid.uuid4().hex}", config, command=tuple(command.split()))
        await worker.start()
        assert await worker.ends() == exit_code, worker.text()
        assert "Traceback" not in worker.text()
        for password in (services.state.app_password, services.state.owner_password):
            assert password.get_secret_value() not in worker.text()
        (line,) = [line for line in worker.text().splitlines() if line.startswith("error: ")]
        return line.removeprefix("error: ").replace(str(config), "CONFIG")

    return run


@asynccontextmanager
async def superuser(services: Services, database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that may do everything, closed again before anybody copies the database."""
    connection = await connect_as_superuser(services.state, database)
    try:
        yield connection
    finally:
        await connection.close()


async def test_a_missing_topic(refusal: Refusal, services: Services, database_name: str) -> None:
    values = config_values(services, database_name)
    values["kafka_config"]["topics"]["audit-events"] = {"partitions": 1}

    assert await refusal(values, EXIT_TOPICS) == (
        "expected the topics customer-sites-events, territory-events, audit-events, got none called audit-events: "
        "`sitelog topics create` creates them"
    )


async def test_a_wrong_partition_count(refusal: Refusal, services: Services, database_name: str) -> None:
    values = config_values(services, database_name)
    values["kafka_config"]["topics"]["territory-events"]["partitions"] = 5

    said = await refusal(values, EXIT_TOPICS)

    assert said.startswith("topic territory-events: expected 5 partitions, as kafka_config.topics says, found 3. ")


async def test_a_compacted_topic(refusal: Refusal, services: Services, database_name: str) -> None:
    topic = f"compacted-{uuid.uuid4().hex}"
    await make_foreign_topic(services.settings(database_name), topic, 1, {"cleanup.policy": "compact"})
    values = config_values(services, database_name)
    values["kafka_config"]["topics"][topic] = {"partitions": 1, "replication_factor": 1}

    said = await refusal(values, EXIT_TOPICS)

    assert said.startswith(f"topic {topic}: expected cleanup.policy delete, found compact: compaction deletes events, ")


async def test_a_typo_in_the_configuration(refusal: Refusal, services: Services, database_name: str) -> None:
    values = config_values(services, database_name)
    values["worker"]["batch_records_maximum"] = 10

    said = await refusal(values, EXIT_USAGE)

    assert said.startswith("CONFIG:")
    assert "worker.batch_records_maximum: expected " in said
    assert "batch_records_max" in said.partition("expected")[2]


async def test_a_wrong_password(refusal: Refusal, services: Services, database_name: str) -> None:
    values = config_values(services, database_name)
    values["database_config"]["primary"]["password"] = "wrong"  # noqa: S105

    said = await refusal(values, EXIT_USAGE)

    assert said.startswith(f"Postgres at 127.0.0.1:{services.state.postgres_port}, database {database_name}, user ")
    assert 'refused: password authentication failed for user "app_user". Check username and password' in said


async def test_a_database_that_does_not_exist(refusal: Refusal, services: Services) -> None:
    said = await refusal(config_values(services, "nowhere"), EXIT_USAGE)

    assert 'database "nowhere" does not exist. Create it, or correct `database` in database_config' in said


async def test_a_role_that_may_not_connect(refusal: Refusal, services: Services, own_database: str) -> None:
    async with superuser(services, own_database) as connection:
        await connection.execute(f"REVOKE CONNECT ON DATABASE {own_database} FROM PUBLIC, app_user")

    said = await refusal(config_values(services, own_database), EXIT_USAGE)

    assert f'refused: permission denied for database "{own_database}". Run `sitelog db init`, or ' in said


async def test_a_role_without_any_rights(refusal: Refusal, services: Services, database_name: str) -> None:
    values = config_values(services, database_name)
    values["database_config"]["primary"] |= {"username": "stranger", "password": "stranger"}
    async with superuser(services, "postgres") as connection:
        await connection.execute("CREATE ROLE stranger LOGIN PASSWORD 'stranger'")

    said = await refusal(values, EXIT_FAILED)

    assert said == "the role stranger may not read the schema sitelog: run `sitelog db init`"


async def test_a_role_that_may_only_read(refusal: Refusal, services: Services, database_name: str) -> None:
    values = config_values(services, database_name)
    values["database_config"]["primary"] |= {
        name: values["database_config"]["read_replica"][name] for name in ("username", "password")
    }

    said = await refusal(values, EXIT_FAILED, "db check")

    assert said.startswith("the role readonly_user lacks rights: INSERT on sitelog.event_log, INSERT on sitelog.")
    assert said.endswith("DELETE on public.territory_assignments_v1: run `sitelog db init`")


async def test_a_role_that_lacks_one_right(refusal: Refusal, services: Services, own_database: str) -> None:
    async with superuser(services, own_database) as connection:
        await connection.execute("REVOKE UPDATE ON sitelog.consumer_position FROM app_user")

    said = await refusal(config_values(services, own_database), EXIT_FAILED, "db check")

    assert said == "the role app_user lacks rights: UPDATE on sitelog.consumer_position: run `sitelog db init`"


async def test_a_database_without_the_schema(refusal: Refusal, services: Services) -> None:
    said = await refusal(config_values(services, "postgres"), EXIT_FAILED, "db check")

    assert said == "the database has no Sitelog schema: run `sitelog db init`"


async def test_an_owner_who_owns_nothing(refusal: Refusal, services: Services, database_name: str) -> None:
    values = config_values(services, database_name)
    values["database_config"]["owner"] = {
        name: values["database_config"]["primary"][name] for name in ("username", "password")
    }

    said = await refusal(values, EXIT_USAGE, "db init")

    assert said.startswith("database_config.owner app_user lacks rights: permission denied for ")
    assert said.endswith("It must own the database or be granted CREATE on it and on its schema public")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (0, "is version 0, this code needs 1: run `sitelog db init`"),
        (99, "is version 99, this code only knows 1: install the release that set it up, or a newer one"),
    ],
)
async def test_a_schema_of_another_version(
    refusal: Refusal, services: Services, own_database: str, version: int, expected: str
) -> None:
    async with superuser(services, own_database) as connection:
        await connection.execute("UPDATE sitelog.schema_version SET version = $1", version)

    said = await refusal(config_values(services, own_database), EXIT_FAILED, "db check")

    assert said == f"the database's schema {expected}"


async def test_a_read_model_with_other_columns(refusal: Refusal, services: Services, own_database: str) -> None:
    async with superuser(services, own_database) as connection:
        await connection.execute("ALTER TABLE contacts_v1 ADD COLUMN fax text")

    said = await refusal(config_values(services, own_database), EXIT_FAILED, "db check")

    assert said.startswith("the table contacts_v1 has other columns than this code: missing [], unknown ['fax']. ")


async def test_kafka_that_is_not_there_is_told_promptly(
    refusal: Refusal, services: Services, database_name: str
) -> None:
    values = config_values(services, database_name)
    values["kafka_config"]["bootstrap_servers"] = [f"{LOOPBACK}:{CLOSED_PORT}"]
    since = time.monotonic()

    said = await refusal(values, EXIT_UNAVAILABLE)

    assert time.monotonic() - since < 15
    assert said.startswith(f"Kafka can't be reached ({values['kafka_config']['bootstrap_servers'][0]}: ")
    assert "connection refused" in said.lower()


@pytest.mark.parametrize("connections", [1, 2], ids=["before-the-consumer", "while-it-connects"])
async def test_kafka_that_goes_away_while_the_worker_starts(
    refusal: Refusal, services: Services, database_name: str, connections: int
) -> None:
    values = config_values(services, database_name)
    # The first connection is that of the checks: the topics, and who is in the group.
    async with open_for_connections(services.state.brokers[0].port, connections) as port:
        values["kafka_config"]["bootstrap_servers"] = [f"{LOOPBACK}:{port}"]

        said = await refusal(values, EXIT_UNAVAILABLE)

    assert said.startswith("Kafka can't be reached: ")


async def test_postgres_that_is_not_there_is_told_promptly(
    refusal: Refusal, services: Services, database_name: str
) -> None:
    values = config_values(services, database_name)
    values["database_config"]["primary"]["port"] = CLOSED_PORT
    since = time.monotonic()

    said = await refusal(values, EXIT_UNAVAILABLE)

    assert time.monotonic() - since < 15
    assert "can't be reached" in said
    assert said.endswith("Is it running?")


async def test_postgres_that_goes_away_while_the_worker_checks_it(
    refusal: Refusal, services: Services, own_database: str
) -> None:
    async with (
        superuser(services, own_database) as looking,
        superuser(services, own_database) as locking,
        locking.transaction(),
    ):
        await locking.execute("LOCK TABLE sitelog.schema_version")
        refused = asyncio.create_task(refusal(config_values(services, own_database), EXIT_UNAVAILABLE))
        await until("the check", lambda: looking.fetchval(CUT_OFF))

        said = await refused

    assert "can't be reached: " in said
    assert said.endswith("terminating connection due to administrator command. Is it running?")


async def test_a_port_that_is_taken(refusal: Refusal, services: Services, database_name: str) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        values = config_values(services, database_name, web_port=port)

        said = await refusal(values, EXIT_UNAVAILABLE)

    assert said.startswith(f"worker.web_port {port} on 127.0.0.1 can't be used: ")
    assert said.endswith("Set another one, or 0 for any")
