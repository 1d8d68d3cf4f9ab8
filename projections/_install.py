"""Sets a database up for Sitelog, checks that it is, and says what to do where it isn't."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Final

import asyncpg

from sitelog.projections import _log
from sitelog.projections._database import session
from sitelog.projections._log_partitions import add_partitions
from sitelog.projections._projection import BOOKKEEPING, Projection
from sitelog.projections._read_models import refuse_incomplete
from sitelog.projections._registry import load
from sitelog.projections._roles import refuse_ungranted, set_up_roles
from sitelog.projections._switch import show
from sitelog.projections._table import Table
from sitelog.streams.codec import Codec
from sitelog.streams.errors import ConfigError, Halt
from sitelog.streams.settings import DatabaseSettings, Settings

SCHEMA_VERSION: Final = 1
"""Version of _schema.sql. With the next one comes a `migrations/` folder: one file per step."""

ADVISORY_LOCK: Final = 5_172_617_801
"""Two installations at once wait for each other: an arbitrary number that nobody else uses."""

VERSION: Final = "SELECT version FROM sitelog.schema_version"

ROW_RIGHTS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")

# What a worker writes besides the read models, and the right that it needs for that.
WRITTEN: Final = (
    ("sitelog.event_log", "INSERT"),
    ("sitelog.conflict", "INSERT"),
    ("sitelog.avro_schema", "INSERT"),
    ("sitelog.consumer_position", "INSERT"),
    ("sitelog.consumer_position", "UPDATE"),
    ("sitelog.parked_event", "INSERT"),
    ("sitelog.parked_event", "UPDATE"),
)

MISSING_RIGHTS: Final = """
SELECT needed.table_name, needed.privilege
FROM unnest($1::text[], $2::text[]) AS needed(table_name, privilege)
WHERE NOT has_table_privilege(needed.table_name, needed.privilege)
"""

# A view that is there, of a log that isn't empty.
SHOWN_ELSEWHERE: Final = "SELECT to_regclass($1) IS NOT NULL AND EXISTS (SELECT FROM sitelog.event_log)"

COLUMNS: Final = """
SELECT column_name::text
FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = $1
"""

# What somebody has made of a view by hand is theirs, as long as it doesn't show another version instead of this one.
SHOWN: Final = """
SELECT
    m.read_model,
    min(t.relname::text) FILTER (WHERE t.relname ~ ('^' || m.read_model || '_v[0-9]+$')) AS shown
FROM unnest($1::text[], $2::text[]) AS m(read_model, own)
JOIN pg_class AS v ON v.relname = m.read_model AND v.relnamespace = 'public'::regnamespace
JOIN pg_rewrite AS r ON r.ev_class = v.oid
JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
JOIN pg_class AS t ON t.oid = d.refobjid
GROUP BY m.read_model
HAVING NOT bool_or(t.relname = m.own)
ORDER BY m.read_model
"""


def owner_of(settings: Settings) -> DatabaseSettings:
    """Return how to connect as the role that may change tables. Raises ConfigError where none is configured."""
    owner = settings.database_config.owner
    if owner is None:
        raise ConfigError(
            "database_config.owner is missing: this command needs the role that owns the tables (username and "
            "password); the workers don't"
        )
    return settings.database_config.primary.model_copy(update={"username": owner.username, "password": owner.password})


async def install(settings: Settings, projections: Sequence[Projection[Any]] | None = None) -> str | None:
    """Create what is missing in the database: schema, read models, roles, grants. Repeating it changes nothing.

    Returns which replay workers still wait for, None where they may start. The read models are those of `load()`
    unless others are given. All in one transaction, as the owner. Raises ConfigError where the owner lacks rights and
    Halt where the database is newer than this code or was filled from topics with fewer partitions.
    """
    projections = load() if projections is None else projections
    try:
        async with session(owner_of(settings), application="sitelog db init") as connection:
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", ADVISORY_LOCK)
                await _install(connection, settings, projections)
            # Afterwards: who else is to grant something needs roles that are there.
            await refuse_ungranted(connection, settings)
            return await _replay_due(connection, projections)
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigError(
            f"database_config.owner {owner_of(settings).username} lacks rights: {error}. It must own the database "
            "or be granted CREATE on it and on its schema public"
        ) from error


async def _install(connection: Any, settings: Settings, projections: Sequence[Projection[Any]]) -> None:
    if await _schema_version(connection) is None:
        await connection.execute(files("sitelog.projections").joinpath("_schema.sql").read_text())
        await connection.execute("INSERT INTO sitelog.schema_version (version) VALUES ($1)", SCHEMA_VERSION)
    await refuse_other_version(connection)
    await add_partitions(connection, settings.kafka_config.topics)
    await _log.store_schemas(connection, Codec().schemas())
    for projection in projections:
        await create_table(connection, projection)
    await set_up_roles(connection, settings, projections)


async def _replay_due(connection: Any, projections: Sequence[Projection[Any]]) -> str | None:
    try:
        await _refuse_unreplayed(connection, projections)
    except Halt as due:
        return str(due)
    return None


async def create_table(connection: Any, projection: Projection[Any]) -> None:
    """Create a read model's table and view where they are missing, and index what it lists.

    Where the log has events, the table is empty until a replay has filled it, and no worker starts before that.
    A view of another version shows that until then.
    """
    table = Table(projection)
    if not await connection.fetch(COLUMNS, table.name):
        await connection.execute(table.create_sql)
        for index_sql in table.index_sqls:
            await connection.execute(index_sql)
        if not await connection.fetchval(SHOWN_ELSEWHERE, f"public.{projection.name}"):
            await show(connection, table)


async def check(connection: Any, projections: Sequence[Projection[Any]]) -> None:
    """Raise Halt, saying what to do, unless the database has this code's schema, and whole read models in its views."""
    await check_tables(connection, projections)
    await _refuse_unreplayed(connection, projections)


async def _refuse_unreplayed(connection: Any, projections: Sequence[Projection[Any]]) -> None:
    await refuse_incomplete(connection, projections)
    await _refuse_other_version_shown(connection, projections)


async def _refuse_other_version_shown(connection: Any, projections: Sequence[Projection[Any]]) -> None:
    """Raise Halt where a view shows a version that this code's workers don't write: readers would see it grow old.

    Of a read model that has all of the log that is wrong for certain; one that has not waits for its replay.
    """
    own = {projection.name: projection.table for projection in projections}
    rows = await connection.fetch(SHOWN, list(own), list(own.values()))
    wrong = {row["read_model"]: row["shown"] for row in rows if row["shown"]}
    if wrong:
        views = ", ".join(f"{name} shows {shown}, expected {own[name]}" for name, shown in wrong.items())
        raise Halt(
            f"views that show the table of another version: {views}. Another release has built it, and no worker of "
            "this one writes it. Install that release again, or to go on with this one, run "
            f"`sitelog replay {' '.join(wrong)}`"
        )


async def check_tables(connection: Any, projections: Sequence[Projection[Any]]) -> None:
    """Raise Halt, saying what to do, unless the database has this code's schema and tables; they may lack events."""
    await refuse_other_version(connection)
    for projection in projections:
        expected = projection.columns.keys() | BOOKKEEPING.keys()
        found = {row[0] for row in await connection.fetch(COLUMNS, projection.table)}
        if not found:
            raise Halt(f"the table {projection.table} is missing or hidden from this role: run `sitelog db init`")
        if expected != found:
            raise Halt(
                f"the table {projection.table} has other columns than this code: missing "
                f"{sorted(expected - found)}, unknown {sorted(found - expected)}. A read model that changes needs a "
                "new version number in its file, then `sitelog db init` and `sitelog replay`"
            )
    await _refuse_missing_rights(connection, projections)


async def _refuse_missing_rights(connection: Any, projections: Sequence[Projection[Any]]) -> None:
    needed = [*WRITTEN, *((f"public.{p.table}", right) for p in projections for right in ROW_RIGHTS)]
    missing = await connection.fetch(MISSING_RIGHTS, *(list(column) for column in zip(*needed, strict=True)))
    if missing:
        user = await connection.fetchval("SELECT current_user")
        lacking = ", ".join(f"{right} on {table}" for table, right in missing)
        raise Halt(f"the role {user} lacks rights: {lacking}: run `sitelog db init`")


async def refuse_other_version(connection: Any) -> None:
    """Raise Halt, saying what to do, unless the database has this code's version of _schema.sql."""
    found = await _schema_version(connection)
    if found is None:
        raise Halt("the database has no Sitelog schema: run `sitelog db init`")
    if found < SCHEMA_VERSION:
        raise Halt(f"the database's schema is version {found}, this code needs {SCHEMA_VERSION}: run `sitelog db init`")
    if found > SCHEMA_VERSION:
        raise Halt(
            f"the database's schema is version {found}, this code only knows {SCHEMA_VERSION}: install the release "
            "that set it up, or a newer one"
        )


async def _schema_version(connection: Any) -> int | None:
    try:
        if await connection.fetchval("SELECT to_regclass('sitelog.schema_version')") is None:
            return None
        version: int | None = await connection.fetchval(VERSION)
    except asyncpg.InsufficientPrivilegeError as error:
        user = await connection.fetchval("SELECT current_user")
        raise Halt(f"the role {user} may not read the schema sitelog: run `sitelog db init`") from error
    return version
