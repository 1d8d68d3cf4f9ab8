"""Who may do what: the owner changes tables, the application adds to the log, the reading role reads."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Any, Final
from unicodedata import normalize

import asyncpg

from sitelog.projections._projection import Projection
from sitelog.streams.errors import ConfigError
from sitelog.streams.settings import DatabaseSettings, Settings

SCRAM_ROUNDS: Final = 4096
"""Postgres's own number."""

# The application may add to the log and read it; a trigger refuses the rest even to the owner.
GRANTS: Final = """
GRANT USAGE ON SCHEMA sitelog, integration, public TO {app}, {read};
GRANT SELECT ON ALL TABLES IN SCHEMA sitelog, integration TO {app}, {read};
GRANT INSERT ON sitelog.event_log, sitelog.conflict, sitelog.avro_schema TO {app};
GRANT INSERT, UPDATE ON sitelog.consumer_position, sitelog.parked_event TO {app};
GRANT CONNECT ON DATABASE {database} TO {app}, {read};
GRANT TEMPORARY ON DATABASE {database} TO {app};
GRANT INSERT, UPDATE ON integration.sync_status, integration.data_mapping TO {app};
"""

LACKS: Final = "SELECT NOT has_database_privilege($1, current_database(), $2)"

# Others may have theirs in `public`; a view may have been dropped by hand.
READ_MODELS: Final = """
SELECT oid::regclass::text
FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relname = ANY ($1)
"""

# Superusers are members of every role.
MAY_BE_OWNER: Final = "SELECT pg_has_role(relowner, 'MEMBER') FROM pg_class WHERE oid = 'sitelog.event_log'::regclass"

EXISTS: Final = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)"


async def set_up_roles(connection: Any, settings: Settings, projections: Sequence[Projection[Any]]) -> None:
    """Create the application's and the reading role where they are missing, and give them what they need, no more.

    A role that exists keeps its password. Raises ConfigError where one is missing and the owner may not create it.
    """
    database = settings.database_config
    read = database.read_replica or database.primary
    for role in (database.primary, read):
        if not await connection.fetchval(EXISTS, role.username):
            await _create(connection, role)
    roles = {"app": _quoted(database.primary.username), "read": _quoted(read.username)}
    await connection.execute(GRANTS.format(**roles, database=_quoted(database.primary.database)))
    ours = [name for projection in projections for name in (projection.table, projection.name)]
    for (name,) in await connection.fetch(READ_MODELS, ours):
        await connection.execute(f"GRANT SELECT ON {name} TO {roles['app']}, {roles['read']}")
    for projection in projections:
        await connection.execute(f"GRANT INSERT, UPDATE, DELETE ON public.{projection.table} TO {roles['app']}")


async def refuse_ungranted(connection: Any, settings: Settings) -> None:
    """Raise ConfigError where the database doesn't let both roles in, or the application make temporary tables.

    To an owner without the grant option Postgres only gives a warning, and grants nothing.
    """
    database = settings.database_config
    read = database.read_replica or database.primary
    app = database.primary.username
    needed = dict.fromkeys(((app, "CONNECT"), (app, "TEMPORARY"), (read.username, "CONNECT")))
    missing = [
        f"`GRANT {right} ON DATABASE {_quoted(database.primary.database)} TO {_quoted(role)}`"
        for role, right in needed
        if await connection.fetchval(LACKS, role, right)
    ]
    if missing:
        raise ConfigError(
            f"database_config.owner may not grant what the roles need: as the database's owner run "
            f"{', '.join(missing)}, then `sitelog db init` again"
        )


async def may_change_log(connection: Any) -> bool:
    """Tell whether this connection's role owns the log, or may become who does, and so may disable its trigger."""
    found: bool = await connection.fetchval(MAY_BE_OWNER)
    return found


async def _create(connection: Any, role: DatabaseSettings) -> None:
    password = role.password.get_secret_value() if role.password else None
    # The verifier, not the password: a server may log its statements.
    secret = f" PASSWORD '{scram_verifier(password, secrets.token_bytes(16))}'" if password else ""
    statement = f"CREATE ROLE {_quoted(role.username)} LOGIN"
    try:
        await connection.execute(statement + secret)
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigError(
            f"the role {role.username} doesn't exist, and database_config.owner may not create it: run "
            f"`{statement}` and give it its password, or grant the owner CREATEROLE; then `sitelog db init` again"
        ) from error


def scram_verifier(password: str, salt: bytes) -> str:
    """Return what Postgres stores instead of a password (RFC 5803), letters that need no quoting."""
    salted = hashlib.pbkdf2_hmac("sha256", normalize("NFKC", password).encode(), salt, SCRAM_ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${SCRAM_ROUNDS}:{encoded[0]}${encoded[1]}:{encoded[2]}"


def _quoted(identifier: str) -> str:
    """Quote a role's name: GRANT takes no parameters."""
    return '"' + identifier.replace('"', '""') + '"'
