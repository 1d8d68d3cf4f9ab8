"""`make bench`: plain Faust, loops by hand, Sitelog and its peers, one after the other on the same events.

It brings its own Kafka and Postgres, checks every site after every run, and leaves nothing behind.
"""

import asyncio
import pstats
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from sitelog.streams.errors import SitelogError
from sitelog.streams.settings import Settings
from sitelog.streams.topics import create_topics
from tests.benchmarks import growth, large, latency, page, rebuild, report, tables
from tests.benchmarks.contenders import CONTENDERS, DEFAULT, SITELOG, Contender
from tests.benchmarks.events import TOPIC, Life, Message
from tests.benchmarks.figures import summarize
from tests.benchmarks.load import load
from tests.benchmarks.machine import describe
from tests.benchmarks.peer import java_version
from tests.benchmarks.race import NotCountedError, Run, race
from tests.benchmarks.rows import ROWS_TOPIC, rows, with_rows_topic
from tests.benchmarks.services import Services, services

NAMES: Final = ", ".join(contender.name for contender in CONTENDERS)


@dataclass(frozen=True)
class Bench:
    """What was asked for."""

    events: int
    sites: int
    rounds: int
    only: list[str]
    json: Path | None
    page: bool
    console: Console

    @property
    def contenders(self) -> list[Contender]:
        """Those who were asked for, or else the usual ones, in the order of CONTENDERS."""
        names = self.only or [contender.name for contender in DEFAULT]
        return [contender for contender in CONTENDERS if contender.name in names]

    async def compare(self) -> bool:
        """Let everybody run, in turn; return whether every run counted."""
        for peer in (contender.peer for contender in self.contenders):
            if peer is not None:
                peer.prepare(self.console.print)
        async with services() as ours:
            machine = await self._machine(ours, self.contenders)
            life = await self._fill(ours, self.contenders)
            runs, failures = await self._rounds(ours, life)
        figures = summarize(runs)
        table = tables.of_figures(figures)
        report.show(self.console, table)
        report.show_contenders(self.console, figures)
        asked = {"events": self.events, "sites": self.sites, "rounds": self.rounds}
        self._write_json(machine, asked, figures=figures, runs=runs)
        if self.page and not failures:
            asked_for = [f"--events {self.events} --sites {self.sites} --rounds {self.rounds}"]
            asked_for += [f"--only {name}" for name in self.only]
            page.put(table, machine, f'make bench ARGS="{" ".join(asked_for)}"')
            page.put_chart(figures)
        return not failures

    async def latency(self, rates: list[float], seconds: float) -> None:
        """Measure how soon an event is visible, at each rate."""
        async with services() as ours:
            machine = await self._machine(ours)
            measured = await latency.measure(ours, rates, seconds)
        table = tables.of_latency(measured)
        report.show(self.console, table)
        self._write_json(machine, {"rates": rates, "seconds": seconds}, latency=measured)
        if self.page:
            chosen = " ".join(f"--latency {rate:g}" for rate in rates)
            page.put(table, machine, f'make bench ARGS="{chosen} --seconds {seconds:g}"')

    async def growth(self, sites: list[int]) -> None:
        """Measure what a change costs with so many sites, and after as many events."""
        machine = await self._machine_alone()
        measured = await growth.measure(sites, self.events)
        table = tables.of_growth(measured)
        report.show(self.console, table)
        self._write_json(machine, {"sites": sites, "changes": self.events}, growth=measured)
        if self.page:
            chosen = " ".join(f"--growth {number}" for number in sites)
            page.put(table, machine, f'make bench ARGS="{chosen} --events {self.events}"')

    async def large(self, events: int) -> None:
        """Measure the memory that events of 1 MB take."""
        machine = await self._machine_alone()
        measured = await large.measure(events)
        table = tables.of_large(measured)
        report.show(self.console, table)
        self._write_json(machine, {"events": events}, large=measured)
        if self.page:
            page.put(table, machine, f'make bench ARGS="--large {events}"')

    async def rebuild(self, processes: list[int]) -> None:
        """Measure how fast so many processes fold the log again."""
        machine = await self._machine_alone()
        measured = await rebuild.measure(Life(self.events, self.sites), processes)
        table = tables.of_rebuild(measured)
        report.show(self.console, table)
        self._write_json(machine, {"events": self.events, "sites": self.sites}, rebuild=measured)
        if self.page:
            chosen = " ".join(f"--rebuild {number}" for number in processes)
            page.put(table, machine, f'make bench ARGS="{chosen} --events {self.events} --sites {self.sites}"')

    async def profile(self, lines: int) -> None:
        """Print where the Sitelog worker's time goes: by function alone, then with all that each calls."""
        async with services() as ours:
            life = await self._fill(ours, [SITELOG])
            file = ours.folder / "profile"
            await race(ours, SITELOG, life, profile=file)
            stats = pstats.Stats(str(file))
        stats.sort_stats("tottime").print_stats(lines)
        stats.sort_stats("cumulative").print_stats(lines)

    def _write_json(
        self, machine: Mapping[str, object], asked: Mapping[str, object], **measured: Sequence[Any]
    ) -> None:
        if self.json:
            report.write_json(self.json, machine, asked=asked, **measured)

    async def _machine_alone(self) -> dict[str, object]:
        async with services() as ours:
            return await self._machine(ours)

    async def _machine(self, ours: Services, contenders: Sequence[Contender] = ()) -> dict[str, object]:
        connection = await ours.connect("postgres")
        machine = await describe(connection)
        await connection.close()
        machine["java"] = java_version()
        machine |= {one.name: one.peer.version for one in contenders if one.peer is not None}
        report.show_machine(self.console, machine)
        return machine

    async def _fill(self, ours: Services, contenders: Sequence[Contender]) -> Life:
        life = Life(self.events, self.sites)
        messages = list(life.messages())
        self._load(ours.settings(), TOPIC, messages)
        if any(contender.peer is not None and contender.peer.topic == ROWS_TOPIC for contender in contenders):
            settings = with_rows_topic(ours.settings())
            await create_topics(settings)
            self._load(settings, ROWS_TOPIC, rows(messages))
        return life

    def _load(self, settings: Settings, topic: str, messages: Iterable[Message]) -> None:
        loaded = load(settings, topic, messages)
        self.console.print(
            f"{loaded.events:,} events of {self.sites:,} sites in {topic}, "
            f"{loaded.value_bytes / loaded.events:.0f} bytes each"
        )

    async def _rounds(self, ours: Services, life: Life) -> tuple[list[Run], list[NotCountedError]]:
        runs: list[Run] = []
        failures: list[NotCountedError] = []
        for number in range(self.rounds):
            for contender in self.contenders:
                try:
                    runs.append(await race(ours, contender, life))
                except NotCountedError as failure:
                    failures.append(failure)
                    self.console.print(f"round {number + 1}: not counted: {failure}", style="red", markup=False)
                else:
                    rate = runs[-1].events_per_second
                    self.console.print(f"round {number + 1}: {contender.title}: {rate:,.0f} events/s", markup=False)
        return runs, failures


def main(
    *,
    events: Annotated[int, typer.Option(min=1, help="How many, creations included.")] = 300_000,
    sites: Annotated[int, typer.Option(min=1, help="How many of the events create one.")] = 20_000,
    rounds: Annotated[int, typer.Option(min=1, max=20, help="Runs of each contender.")] = 2,
    only: Annotated[list[str] | None, typer.Option(help=f"Only these of {NAMES}.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write every figure to this file, too.")] = None,
    write_page: Annotated[bool, typer.Option("--page", help="Put the figures into docs/benchmarks.md, too.")] = False,
    latency: Annotated[list[float] | None, typer.Option(help="Measure latency instead, at so many events/s.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="How long, at each rate of --latency.")] = 20,
    growth: Annotated[list[int] | None, typer.Option(help="Measure --events changes of so many sites instead.")] = None,
    rebuild: Annotated[list[int] | None, typer.Option(help="Measure replays instead, by so many processes.")] = None,
    large: Annotated[int, typer.Option(help="Measure memory instead, with so many events of 1 MB.")] = 0,
    profile: Annotated[int, typer.Option(help="Profile Sitelog instead, and print so many lines.")] = 0,
) -> None:
    """Compare what gets a topic into Postgres."""
    if sites > events:
        raise typer.BadParameter(f"expected at most one site for each event, got {sites} of {events}")
    unknown = set(only or ()) - {contender.name for contender in CONTENDERS}
    if unknown:
        raise typer.BadParameter(f"expected some of {NAMES}, got {', '.join(sorted(unknown))}")
    bench = Bench(events, sites, rounds, only or [], json, write_page, Console())
    try:
        if profile:
            asyncio.run(bench.profile(profile))
        elif latency:
            asyncio.run(bench.latency(latency, seconds))
        elif growth:
            asyncio.run(bench.growth(growth))
        elif rebuild:
            asyncio.run(bench.rebuild(rebuild))
        elif large:
            asyncio.run(bench.large(large))
        elif not asyncio.run(bench.compare()):
            raise typer.Exit(1)
    except (SitelogError, NotCountedError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    typer.run(main)
