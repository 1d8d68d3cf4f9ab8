"""One run of one contender: started on a full topic, watched from outside, checked at the end.

Processor time and memory are those of the contender's processes together.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from sitelog.deploy._daemon import Daemon, stop_together
from tests.benchmarks.contenders import Contender
from tests.benchmarks.events import Life, Site
from tests.benchmarks.peer import Launch
from tests.benchmarks.services import Database, Services

POLL_SECONDS = 0.02
# Some answers take as long as there are rows to read: looking may take a tenth of the time, not more.
POLL_REST = 9
# From one commit to the next, the first one after the launch included: one that hangs doesn't hold the rest up.
SILENT_SECONDS_MAX = 180
RUN_SECONDS_MAX = 1_800
_LINE_MAX = 300
STOP_STEPS = ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0))


class NotCountedError(Exception):
    """A run whose figure would be worth nothing: it ended early, hung, or wrote something else."""


@dataclass(frozen=True)
class Sample:
    """What was seen at one moment; `cpu_seconds` are user and system time since the process began.

    `took` is how many seconds the database needed for the answer.
    """

    at: float
    committed: int
    cpu_seconds: float
    took: float


@dataclass(frozen=True)
class Run:
    """The figures of one run. Rate and cost are between the first and the last commit that were seen."""

    contender: str
    events_per_second: float
    cpu_seconds_per_million: float
    memory_peak_bytes: int
    start_seconds: float
    seconds: float
    cpu_seconds_total: float


async def race(services: Services, contender: Contender, life: Life, *, profile: Path | None = None) -> Run:
    """Let a contender apply everything that `life` put into the topic. Raises NotCountedError.

    With `profile` it runs under a profiler, which writes that file; the figures are a profiled process's then.
    """
    async with services.fresh_database(contender.name) as database, connected(services, database) as connection:
        if contender.setup_sql is not None:
            await connection.execute(contender.setup_sql)
        async with watched(services, contender, database, connection, profile) as watch:
            run = await watch.until(life.events, profiled=profile is not None)
        await check(connection, contender, life)
    return run


@asynccontextmanager
async def connected(services: Services, database: Database) -> AsyncIterator[Any]:
    """A connection of the superuser's, closed before the database is dropped."""
    connection = await services.connect(database.name)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def watched(
    services: Services, contender: Contender, database: Database, connection: Any, profile: Path | None = None
) -> AsyncIterator["Watch"]:
    """Start a contender's processes, and end them at the end. Raises NotCountedError when one ended before."""
    daemons = [services.daemon(f"{database.name}_{number}") for number in range(contender.processes)]
    launch = launched(contender, database, profile)
    environ = {**environment(), **launch.environ}
    started = time.monotonic()
    processes = [psutil.Process(daemon.start(launch.command, environ).pid) for daemon in daemons]
    try:
        yield Watch(contender, processes, connection, started)
    except psutil.NoSuchProcess:
        raise NotCountedError(f"{contender.name} ended before it was through{last_words(daemons)}") from None
    except NotCountedError as failure:
        # A JVM whose sink has failed goes on without it: only its log says so.
        raise NotCountedError(f"{failure}{last_words(daemons)}") from None
    finally:
        stop_together(daemons, STOP_STEPS)


def last_words(daemons: Sequence[Daemon]) -> str:
    """Return what the processes have said last, to be put behind a reason."""
    return "".join(f"\n  | {line[:_LINE_MAX]}" for daemon in daemons for line in daemon.last_lines(12))


@dataclass
class Watch:
    """Looks at a contender's processes and at its database, 50 times a second at most."""

    contender: Contender
    processes: Sequence[psutil.Process]
    connection: Any
    started: float
    memory_peak: int = 0

    async def until(self, events: int, *, after: int = 0, profiled: bool = False) -> Run:
        """Return the figures once that many events are committed, `after` of them before the start.

        Raises NotCountedError if they never are.
        """
        first = await self.until_committed(after + 1)
        if profiled:
            for process in self.processes:
                process.send_signal(signal.SIGPROF)
        last = await self.until_committed(events)
        return self._figures(first, last)

    async def until_committed(self, events: int) -> Sample:
        """Return what is seen once that many events are committed. Raises NotCountedError if they never are."""
        moved = sample = await self._sample()
        while sample.committed < events:
            if sample.committed > moved.committed:
                moved = sample
            if sample.at - moved.at > SILENT_SECONDS_MAX or sample.at - self.started > RUN_SECONDS_MAX:
                raise NotCountedError(
                    f"{self.contender.name}: {sample.committed} of {events} events after "
                    f"{sample.at - self.started:.0f} s, the last commit {sample.at - moved.at:.0f} s ago"
                )
            await asyncio.sleep(max(POLL_SECONDS, POLL_REST * sample.took))
            sample = await self._sample()
        return sample

    async def _sample(self) -> Sample:
        asked = time.monotonic()
        committed = await self.connection.fetchval(self.contender.committed_sql)
        at = time.monotonic()
        self.memory_peak = max(self.memory_peak, sum(process.memory_info().rss for process in self.processes))
        cpu_seconds = sum(sum(process.cpu_times()[:2]) for process in self.processes)
        return Sample(at, committed, cpu_seconds, at - asked)

    def _figures(self, first: Sample, last: Sample) -> Run:
        events = last.committed - first.committed
        if events <= 0:
            raise NotCountedError(f"{self.contender.name}: all {last.committed} events at once, so there is no rate")
        return Run(
            contender=self.contender.name,
            events_per_second=events / (last.at - first.at),
            cpu_seconds_per_million=(last.cpu_seconds - first.cpu_seconds) / events * 1_000_000,
            memory_peak_bytes=self.memory_peak,
            start_seconds=first.at - self.started,
            seconds=last.at - self.started,
            cpu_seconds_total=last.cpu_seconds,
        )


def launched(contender: Contender, database: Database, profile: Path | None) -> Launch:
    """What one of the contender's processes is started with."""
    if contender.peer is not None:
        return contender.peer.launch(database)
    return Launch(command(contender, database, profile))


def command(contender: Contender, database: Database, profile: Path | None) -> list[str]:
    """The whole command, through the profiler where there is a file for its findings."""
    launcher = ["-m", "tests.benchmarks.profiled", str(profile)] if profile else ["-m"]
    return [sys.executable, *launcher, contender.module, *contender.arguments, "--config", str(database.config)]


def environment() -> dict[str, str]:
    """This process's own, without what would point elsewhere; the web server takes any free port."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SITELOG")}
    return {**kept, "SITELOG__WORKER__WEB_PORT": "0"}


async def check(connection: Any, contender: Contender, life: Life) -> None:
    """Compare every site, and the number of events in the log, with what was produced. Raises NotCountedError."""
    found = {row[0]: Site(*row[1:]) for row in await connection.fetch(contender.sites_sql)}
    wrong = [site_id for site_id in life.sites.keys() | found.keys() if life.sites.get(site_id) != found.get(site_id)]
    if wrong:
        example = min(wrong)
        raise NotCountedError(
            f"{contender.name}: {len(wrong)} sites differ, such as {example}: expected {life.sites.get(example)}, "
            f"found {found.get(example)}"
        )
    if contender.log_sql is not None:
        logged = await connection.fetchval(contender.log_sql)
        if logged != life.events:
            raise NotCountedError(f"{contender.name}: expected {life.events} events in the log, found {logged}")
