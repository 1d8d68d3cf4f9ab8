"""Connections for commands that only look: to the read replica where there is one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from sitelog.projections._database import session
from sitelog.projections._install import refuse_other_version
from sitelog.streams.settings import Settings

STATEMENT_SECONDS_MAX: Final = 15.0
"""As long as Kafka is waited for: what is looked up has an index, or is little."""


@asynccontextmanager
async def looking(settings: Settings, command: str, *, bounded: bool = True) -> AsyncIterator[asyncpg.Connection]:
    """Open a connection for a block that changes nothing; what a replica says may be a moment old.

    Raises UnavailableError where Postgres can't be reached, goes away within the block or, where that is
    `bounded`, needs too long for a statement; ConfigError where it refuses us, and Halt where its schema isn't this
    code's.
    """
    database = settings.database_config.read_replica or settings.database_config.primary
    statement_seconds = STATEMENT_SECONDS_MAX if bounded else None
    async with session(database, application=f"sitelog {command}", statement_seconds=statement_seconds) as connection:
        await refuse_other_version(connection)
        yield connection
