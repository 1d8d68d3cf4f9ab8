"""What compose.yaml tells Kafka and Postgres, told to real ones, as there is no engine here."""

import asyncio
import os
import subprocess
from pathlib import Path

import asyncpg
import pytest
import yaml

from sitelog.deploy._jars import fetch_jars
from sitelog.deploy._java import find_java
from sitelog.deploy._postgres_data import SUPERUSER, find_binaries
from sitelog.deploy._server_properties import server_properties
from sitelog.deploy._state import new_state
from sitelog.deploy.postgres import start_postgres
from sitelog.projections._database import connect
from sitelog.projections._install import install
from sitelog.streams.settings import load_settings
from tests.conftest import watched_folder

pytestmark = pytest.mark.services
ROOT = Path(__file__).parents[2]
PASSWORDS = {f"SITELOG_{role}_PASSWORD": f"it's {role}'s" for role in ("OWNER", "APP", "READ")}


@pytest.fixture
async def untouched_postgres():
    """A server of this test's own: roles belong to a whole server."""
    with watched_folder() as folder:
        state = new_state(brokers=1)
        await start_postgres(folder, state, os.environ)
        yield state


async def test_the_roles_made_at_the_first_start_are_those_that_init_and_workers_use(untouched_postgres):
    port = str(untouched_postgres.postgres_port)
    psql = find_binaries(None, os.environ).folder / "psql"
    await asyncio.to_thread(
        subprocess.run,
        [psql, "--no-psqlrc", "--host=127.0.0.1", f"--port={port}", "--username", SUPERUSER, "--dbname=postgres",
         "--file", ROOT / "deploy" / "docker" / "roles.sql"],
        env={**os.environ, **PASSWORDS, "PGPASSWORD": untouched_postgres.superuser_password.get_secret_value()},
        check=True,
    )  # fmt: skip
    overrides = {
        f"SITELOG__DATABASE_CONFIG__{server}__{name}": value
        for server in ("PRIMARY", "READ_REPLICA")
        for name, value in (("HOST", "127.0.0.1"), ("PORT", port))
    }
    owner = {
        "SITELOG__DATABASE_CONFIG__OWNER__USERNAME": "sitelog_owner",
        "SITELOG__DATABASE_CONFIG__OWNER__PASSWORD": PASSWORDS["SITELOG_OWNER_PASSWORD"],
    }
    settings = load_settings(ROOT / "deploy" / "config" / "compose.yaml", {**PASSWORDS, **overrides, **owner})
    await install(settings)
    for database in (settings.database_config.primary, settings.database_config.read_replica):
        connection = await connect(database)
        assert await connection.fetchval("SELECT count(*) FROM sitelog.event_log") == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DROP TABLE sitelog.event_log")
        await connection.close()


def test_kafka_s_environment_is_a_configuration_that_a_broker_takes(tmp_path):
    environ = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["kafka"]["environment"]
    # As the image does it: KAFKA_LOG_DIRS becomes log.dirs.
    settings = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in environ.items()
        if name.startswith("KAFKA_")
    }
    # Kafka takes any name in silence: ours were held against its own list of settings when they were written.
    assert settings.keys() <= broker_settings(tmp_path).keys()
    settings["log.dirs"] = tmp_path / "data"
    properties = tmp_path / "server.properties"
    properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    java, jars = find_java(os.environ), fetch_jars(os.environ, print)
    formatted = subprocess.run(
        [java, "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*", "kafka.tools.StorageTool", "format",
         "--cluster-id", environ["CLUSTER_ID"], "--config", properties],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert formatted.returncode == 0, formatted.stdout + formatted.stderr
    assert f"cluster.id={environ['CLUSTER_ID']}" in (tmp_path / "data" / "meta.properties").read_text()


def broker_settings(folder):
    state = new_state(brokers=1)
    text = server_properties(state, state.brokers[0], folder)
    return dict(line.split("=", 1) for line in text.splitlines())
