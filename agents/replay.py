"""Folds the log again from its beginning into fresh tables, and lets them take the place of those in use.

Workers may run meanwhile; they are held up only for the switch itself. Whenever a replay ends early, whatever the
reason, the tables in use stay, and the next replay begins anew.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Final

import asyncpg

from sitelog.agents._refold import APPLICATION, AT_WORK
from sitelog.agents._replay_run import Order, Progress, ReplayRun, Source
from sitelog.projections._compare import Difference
from sitelog.projections._database import session
from sitelog.projections._install import check_tables, owner_of
from sitelog.projections._registry import Plan
from sitelog.streams.errors import ConfigError, Halt
from sitelog.streams.settings import Settings

REPLAYING: Final = 5_172_617_802
"""Advisory lock of the one replay that may run in a database."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a replay came to. `differences` is None where it switched, without having compared."""

    read_models: tuple[str, ...]
    source: Source
    events: int
    seconds: float
    rows: dict[str, int]
    switched: bool
    differences: tuple[Difference, ...] | None


async def replay(
    settings: Settings,
    planned: Plan,
    names: Sequence[str] = (),
    *,
    source: Source = "log",
    verify: bool = False,
    progress: Progress = lambda _done, _of: None,
) -> Report:
    """Build the read models of these names, or all, again; switch to them, or with `verify` only compare.

    Raises ConfigError for a name that isn't one, or an owner that doesn't own the tables; and Halt, nothing being
    switched, where an event can't be folded, another replay runs, a table can't be replaced, or somebody keeps one
    locked for too long.
    """
    known = [projection.name for projection in planned.projections]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ConfigError(f"expected names of read models, of {', '.join(known)}, got {', '.join(unknown)}")
    began = monotonic()
    order = Order(tuple(names) or tuple(known), source, verify)
    try:
        async with _alone(settings) as connection:
            run = ReplayRun(settings, planned, order, connection, progress)
            await check_tables(connection, run.planned.projections)
            differences = await run.run()
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigError(
            f"database_config.owner {owner_of(settings).username} must own the tables: {error}"
        ) from error
    return Report(tuple(run.rows), source, run.events, monotonic() - began, run.rows, not verify, differences)


@asynccontextmanager
async def _alone(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """Connect as the owner, with the lock that one replay at a time can have, and alone with AT_WORK."""
    async with session(owner_of(settings), application=APPLICATION) as connection:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", REPLAYING):
            raise Halt("another replay is at work in this database: wait for its end")
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", AT_WORK):
            raise Halt("processes of a replay that was killed are still at work: try again in a moment")
        yield connection
