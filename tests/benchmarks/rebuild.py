"""How fast the log is folded again: `sitelog replay`, as users run it, once a worker has applied everything."""

import asyncio
import json
import resource
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.benchmarks.contenders import SITELOG
from tests.benchmarks.events import TOPIC, Life
from tests.benchmarks.load import load_pieces
from tests.benchmarks.race import POLL_SECONDS, RUN_SECONDS_MAX, NotCountedError, check, connected, environment, watched
from tests.benchmarks.services import services


@dataclass(frozen=True)
class Rebuild:
    """One replay of the whole log, by so many processes: rate from its command's beginning to the switched tables."""

    processes: int
    events: int
    sites: int
    events_per_second: float
    cpu_seconds_per_million: float
    memory_peak_bytes: int


async def measure(life: Life, processes: Sequence[int]) -> list[Rebuild]:
    """Let a worker apply `life`, then replay its log by so many processes, in turn. Raises NotCountedError."""
    sites = len(life.sites)
    measured = []
    async with (
        services() as ours,
        ours.fresh_database(SITELOG.name) as database,
        connected(ours, database) as connection,
    ):
        load_pieces(ours.settings(), TOPIC, life.messages())
        async with watched(ours, SITELOG, database, connection) as watch:
            await watch.until_committed(life.events)
        for number in processes:
            await connection.execute("CHECKPOINT")
            rate, cpu_seconds, memory = await _replay(database.config, number, life.events)
            await check(connection, SITELOG, life)
            measured.append(Rebuild(number, life.events, sites, rate, cpu_seconds / life.events * 1e6, memory))
    return measured


async def _replay(config: Path, processes: int, events: int) -> tuple[float, float, int]:
    """Return events per second, processor seconds and bytes of memory of the command and its processes."""
    before = _cpu_seconds()
    replay = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sitelog.cli", "replay", "--json", "--config", config),
        env={**environment(), "SITELOG__REPLAY__PROCESSES": str(processes)},
        stdout=PIPE,
    )
    try:
        async with asyncio.timeout(RUN_SECONDS_MAX), asyncio.TaskGroup() as group:
            memory = group.create_task(_memory_peak(replay))
            out, _ = await replay.communicate()
    except TimeoutError:
        raise NotCountedError(f"sitelog replay: not done after {RUN_SECONDS_MAX} s") from None
    finally:
        if replay.returncode is None:
            replay.kill()
    if replay.returncode != 0:
        raise NotCountedError(f"sitelog replay ended with {replay.returncode}")
    found = json.loads(out)
    if found["events"] != events:
        raise NotCountedError(f"sitelog replay: expected {events} events, got {found['events']}")
    return found["events_per_second"], _cpu_seconds() - before, memory.result()


async def _memory_peak(process: Process) -> int:
    """Return the most bytes that the process and those it started had at once, until it has ended."""
    peak = 0
    while process.returncode is None:
        with suppress(psutil.NoSuchProcess):  # one that ends while it is looked at
            parent = psutil.Process(process.pid)
            peak = max(peak, sum(one.memory_info().rss for one in (parent, *parent.children(recursive=True))))
        await asyncio.sleep(POLL_SECONDS)
    return peak


def _cpu_seconds() -> float:
    """Return what all children that have ended took, user and system."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
