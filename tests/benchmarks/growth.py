"""What a change costs when there are more sites, or a longer log before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tests.benchmarks.contenders import SITELOG
from tests.benchmarks.events import TOPIC, Life
from tests.benchmarks.load import load_pieces
from tests.benchmarks.race import Run, check, connected, watched
from tests.benchmarks.services import services


@dataclass(frozen=True)
class Growth:
    """The changes' figures after a log of `log_events`, and the memory that the worker took who applied these."""

    sites: int
    log_events: int
    backlog_memory_peak_bytes: int
    changes: Run


async def measure(sites: Sequence[int], changes: int) -> list[Growth]:
    """Measure with so many sites each, then with the fewest of them and as long a log as the most of them had.

    The second figure of the fewest tells what is the log's doing, and what the sites'. Raises NotCountedError.
    """
    fewest, most = min(sites), max(sites)
    steps = [(number, number) for number in sorted(set(sites))]
    if fewest < most:
        steps.append((fewest, most))
    return [await _step(number, log_events, changes) for number, log_events in steps]


async def _step(sites: int, log_events: int, changes: int) -> Growth:
    life = Life(log_events + changes, sites)
    messages = life.messages()
    async with (
        services() as ours,
        ours.fresh_database(SITELOG.name) as database,
        connected(ours, database) as connection,
    ):
        load_pieces(ours.settings(), TOPIC, islice(messages, log_events))
        async with watched(ours, SITELOG, database, connection) as creating:
            await creating.until_committed(log_events)
        await _tidy(connection)
        load_pieces(ours.settings(), TOPIC, messages)
        async with watched(ours, SITELOG, database, connection) as changing:
            measured = await changing.until(life.events, after=log_events)
        await check(connection, SITELOG, life)
    return Growth(sites, log_events, creating.memory_peak, measured)


async def _tidy(connection: Any) -> None:
    """Do now what autovacuum would do in the middle of the next run, or not."""
    await connection.execute("VACUUM (ANALYZE)")
    await connection.execute("CHECKPOINT")
