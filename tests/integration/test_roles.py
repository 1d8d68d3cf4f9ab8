"""Least privilege, as Postgres itself enforces it: what `sitelog db init` lets each role do, and nothing else."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from sitelog.agents._preflight import preflight
from sitelog.deploy._state import StackState
from sitelog.deploy.postgres import connect_as_superuser
from sitelog.projections._database import connect
from sitelog.projections._install import check, install, owner_of
from sitelog.projections._read_models import PROJECTOR
from sitelog.projections._registry import load, plan
from sitelog.streams.errors import ConfigError
from sitelog.streams.settings import DatabaseSettings, Settings

pytestmark = pytest.mark.services

PASSWORD = "pässword with 'quotes' and \\ too"  # noqa: S105

TABLES = """
SELECT format('%I.%I', schemaname, tablename)
FROM pg_tables WHERE schemaname IN ('sitelog', 'integration', 'public') ORDER BY 1
"""

HELD = """
SELECT privilege FROM unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege
WHERE has_table_privilege($1, $2, privilege)
"""

# Everything that the application may change. What isn't named here it may only read.
MAY = {
    "sitelog.event_log": {"INSERT"},
    "sitelog.conflict": {"INSERT"},
    "sitelog.avro_schema": {"INSERT"},
    "sitelog.consumer_position": {"INSERT", "UPDATE"},
    "sitelog.parked_event": {"INSERT", "UPDATE"},
    "integration.sync_status": {"INSERT", "UPDATE"},
    "integration.data_mapping": {"INSERT", "UPDATE"},
    **{f"public.{projection.table}": {"INSERT", "UPDATE", "DELETE"} for projection in load()},
}

FORBIDDEN_TO_BOTH = [
    "UPDATE sitelog.event_log SET payload = ''",
    "DELETE FROM sitelog.event_log",
    "TRUNCATE sitelog.event_log",
    "DROP TABLE sitelog.event_log",
    "ALTER TABLE sitelog.event_log DISABLE TRIGGER event_log_append_only",
    "DROP TRIGGER event_log_append_only ON sitelog.event_log",
    "CREATE OR REPLACE FUNCTION sitelog.refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "CREATE TRIGGER mine BEFORE INSERT ON sitelog.event_log EXECUTE FUNCTION sitelog.refuse_change()",
    "SET session_replication_role = replica",
    "DELETE FROM sitelog.consumer_position",
    "DELETE FROM sitelog.parked_event",
    "UPDATE sitelog.conflict SET resolution = 'reject'",
    "DELETE FROM sitelog.conflict",
    "UPDATE sitelog.schema_version SET version = 0",
    "INSERT INTO sitelog.log_partition VALUES (99, 'another', 0)",
    "INSERT INTO sitelog.position_change VALUES (DEFAULT)",
    "TRUNCATE customer_sites_v1",
    "DROP VIEW customer_sites",
    "CREATE TABLE public.mine ()",
    "CREATE TABLE sitelog.mine ()",
    "CREATE ROLE mine",
]
FORBIDDEN_TO_READERS = [
    "INSERT INTO sitelog.event_log (log_partition) VALUES (1)",
    "INSERT INTO sitelog.consumer_position (consumer) VALUES ('mine')",
    "UPDATE sitelog.consumer_position SET next_offset = 0",
    "UPDATE sitelog.parked_event SET status = 'discarded'",
    "INSERT INTO customer_sites_v1 (site_id) VALUES ('mine')",
    "UPDATE customer_sites_v1 SET version = 0",
    "DELETE FROM customer_sites_v1",
    "UPDATE integration.data_mapping SET is_active = FALSE",
]


@pytest.fixture
async def without_roles(empty_database: Settings, postgres: StackState) -> AsyncIterator[Settings]:
    """A database whose owner may create roles, and a configuration with two that don't exist."""
    mark = uuid.uuid4().hex[:8]
    owner = f"owner_{mark}"
    databases = empty_database.database_config
    superuser = await connect_as_superuser(postgres, databases.primary.database)
    await superuser.execute(f"CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD 'owner'")
    await superuser.execute(f"ALTER DATABASE {databases.primary.database} OWNER TO {owner}")

    def named(database: DatabaseSettings, name: str) -> DatabaseSettings:
        update = {"username": f'{name}_"{mark}"', "password": SecretStr(PASSWORD)}
        return database.model_copy(update=update)

    assert databases.read_replica is not None
    update = {
        "owner": databases.owner.model_copy(update={"username": owner, "password": SecretStr("owner")}),
        "primary": named(databases.primary, "app"),
        "read_replica": named(databases.read_replica, "read"),
    }
    yield empty_database.model_copy(update={"database_config": databases.model_copy(update=update)})
    await superuser.execute(f"ALTER ROLE {owner} NOCREATEROLE")
    await superuser.close()


async def test_init_creates_the_roles_that_are_missing_with_their_passwords(without_roles: Settings) -> None:
    await install(without_roles)
    await install(without_roles)

    databases = without_roles.database_config
    application = await connect(databases.primary)
    await check(application, load())
    reading = await connect(databases.read_replica)
    assert await reading.fetch("SELECT * FROM customer_sites") == []
    for connection in (application, reading):
        await connection.close()


async def test_an_owner_who_may_not_create_roles_is_told_which_and_how(
    without_roles: Settings, postgres: StackState
) -> None:
    superuser = await connect_as_superuser(postgres)
    await superuser.execute(f"ALTER ROLE {without_roles.database_config.owner.username} NOCREATEROLE")
    await superuser.close()

    with pytest.raises(
        ConfigError, match=r'the role app_"\w+" doesn\'t exist, .* run `CREATE ROLE .* LOGIN`'
    ) as refused:
        await install(without_roles)

    assert PASSWORD not in str(refused.value)
    assert "SCRAM" not in str(refused.value)


async def test_init_lets_the_roles_into_a_database_that_isnt_open_to_everybody(
    without_roles: Settings, postgres: StackState
) -> None:
    databases = without_roles.database_config
    superuser = await connect_as_superuser(postgres, databases.primary.database)
    await superuser.execute(f"REVOKE ALL ON DATABASE {databases.primary.database} FROM PUBLIC")
    await superuser.close()

    await install(without_roles)

    for role in (databases.primary, databases.read_replica):
        connection = await connect(role)
        may = await connection.fetchval("SELECT has_database_privilege(current_database(), 'TEMPORARY')")
        assert may == (role is databases.primary)
        await connection.close()


async def test_an_owner_who_may_not_let_them_in_is_told_what_to_grant(
    without_roles: Settings, postgres: StackState
) -> None:
    databases = without_roles.database_config
    name, owner = databases.primary.database, databases.owner.username
    superuser = await connect_as_superuser(postgres, name)
    await superuser.execute(
        f"ALTER DATABASE {name} OWNER TO CURRENT_USER; REVOKE ALL ON DATABASE {name} FROM PUBLIC; "
        f"GRANT CONNECT, CREATE ON DATABASE {name} TO {owner}; GRANT CREATE ON SCHEMA public TO {owner}"
    )

    with pytest.raises(ConfigError, match="as the database's owner run `GRANT CONNECT ON ") as refused:
        await install(without_roles)
    statements = str(refused.value).split("`")[1:-2:2]
    assert [statement.split()[1] for statement in statements] == ["CONNECT", "TEMPORARY", "CONNECT"]
    for statement in statements:
        await superuser.execute(statement)
    await superuser.close()

    await install(without_roles)


async def test_what_others_have_in_public_is_left_to_them(without_roles: Settings, postgres: StackState) -> None:
    databases = without_roles.database_config
    superuser = await connect_as_superuser(postgres, databases.primary.database)
    await superuser.execute(
        f"CREATE TABLE public.invoices (); ALTER TABLE public.invoices OWNER TO {databases.owner.username}; "
        "CREATE TABLE public.somebody_elses (); CREATE VIEW public.their_view AS SELECT FROM public.somebody_elses"
    )

    await install(without_roles)

    for role in (databases.primary, databases.read_replica):
        readable = "SELECT has_table_privilege($1, $2, 'SELECT')"
        assert await superuser.fetchval(readable, role.username, "public.customer_sites")
        for theirs in ("public.invoices", "public.somebody_elses", "public.their_view"):
            assert not await superuser.fetchval(readable, role.username, theirs), theirs
    await superuser.close()


async def test_a_view_that_somebody_has_dropped_doesnt_stop_init(database: Settings) -> None:
    owner = await connect(owner_of(database))
    await owner.execute("DROP VIEW public.customer_sites")
    await install(database)
    await owner.close()


async def privileges(settings: Settings, username: str) -> dict[str, set[str]]:
    """What a role may change, table by table, as Postgres itself says."""
    connection = await connect(owner_of(settings))
    try:
        tables = [name for (name,) in await connection.fetch(TABLES)]
        held = {name: {row[0] for row in await connection.fetch(HELD, username, name)} for name in tables}
    finally:
        await connection.close()
    return {name: rights for name, rights in held.items() if rights}


async def test_the_application_holds_these_rights_and_no_others(database: Settings) -> None:
    assert await privileges(database, database.database_config.primary.username) == MAY


async def test_the_reading_role_may_change_nothing(database: Settings) -> None:
    assert await privileges(database, database.database_config.read_replica.username) == {}


@pytest.fixture(params=["application", "reading role"])
async def role(request: Any, database: Settings) -> AsyncIterator[tuple[asyncpg.Connection, list[str]]]:
    """Each of the two, and what it must not do."""
    databases = database.database_config
    reads = request.param == "reading role"
    connection = await connect(databases.read_replica if reads else databases.primary)
    yield connection, FORBIDDEN_TO_BOTH + (FORBIDDEN_TO_READERS if reads else [])
    await connection.close()


async def test_postgres_refuses_each_statement_that_is_forbidden(role: tuple[asyncpg.Connection, list[str]]) -> None:
    connection, forbidden = role
    allowed = []
    for statement in forbidden:
        try:
            await connection.execute(statement)
        except asyncpg.InsufficientPrivilegeError:
            continue
        allowed.append(statement)

    assert allowed == []


@pytest.mark.parametrize("attributes", ["SUPERUSER", "IN ROLE {owner}"])
async def test_a_worker_whose_role_could_change_the_log_says_so_at_its_start(
    settings: Settings, postgres: StackState, caplog: pytest.LogCaptureFixture, attributes: str
) -> None:
    databases = settings.database_config
    name = f"mighty_{uuid.uuid4().hex[:8]}"
    superuser = await connect_as_superuser(postgres)
    with_rights = attributes.format(owner=databases.owner.username)
    await superuser.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'mighty' {with_rights}")
    mighty = databases.primary.model_copy(update={"username": name, "password": SecretStr("mighty")})
    update = {"database_config": databases.model_copy(update={"primary": mighty})}

    await preflight(settings.model_copy(update=update), PROJECTOR, plan(load()))

    (said,) = [record.getMessage() for record in caplog.records if record.name == "sitelog.worker"]
    assert said.startswith(f"the role {name} owns sitelog.event_log, or may act as its owner")
    await superuser.execute(f"DROP ROLE {name}")
    await superuser.close()


async def test_a_worker_with_the_applications_role_has_nothing_to_say_of_it(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    await preflight(settings, PROJECTOR, plan(load()))
    assert [record for record in caplog.records if record.name == "sitelog.worker"] == []
