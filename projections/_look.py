"""Connections for commands that only look: to the read replica where there is one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from sitelog.projections._database import session
from sitelog.projections._install import refuse_other_version
from sitelog.streams.settings import Settings


@asynccontextmanager
async def looking(settings: Settings, command: str) -> AsyncIterator[asyncpg.Connection]:
    """Open a connection for a block that changes nothing; what a replica says may be a moment old.

    Raises UnavailableError where Postgres can't be reached or goes away within the block, ConfigError where it
    refuses us, and Halt where its schema isn't this code's.
    """
    database = settings.database_config.read_replica or settings.database_config.primary
    async with session(database, application=f"sitelog {command}") as connection:
        await refuse_other_version(connection)
        yield connection
