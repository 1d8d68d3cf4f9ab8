"""`make bench`: plain Faust, a hand-written loop and Sitelog, one after the other on the same topic."""

import asyncio
import pstats
from typing import Annotated

import typer
from rich.console import Console

from tests.benchmarks.contenders import CONTENDERS, SITELOG
from tests.benchmarks.events import Life
from tests.benchmarks.load import load
from tests.benchmarks.race import race
from tests.benchmarks.services import services

TOPIC = "customer-sites-events"


async def profile(events: int, sites: int, lines: int) -> None:
    """Print where the Sitelog worker's time goes: by function alone, then with all that it calls."""
    async with services() as ours:
        life = Life(events, sites)
        load(ours.settings(), TOPIC, life.messages())
        file = ours.folder / "profile"
        await race(ours, SITELOG, life, profile=file)
        stats = pstats.Stats(str(file))
        stats.sort_stats("tottime").print_stats(lines)
        stats.sort_stats("cumulative").print_stats(lines)


async def run(events: int, sites: int, rounds: int, only: list[str]) -> None:
    async with services() as ours:
        life = Life(events, sites)
        Console().print(load(ours.settings(), TOPIC, life.messages()))
        for _ in range(rounds):
            for contender in CONTENDERS:
                if not only or contender.name in only:
                    Console().print(await race(ours, contender, life))


def main(
    events: Annotated[int, typer.Option(min=1)] = 300_000,
    sites: Annotated[int, typer.Option(min=1)] = 20_000,
    rounds: Annotated[int, typer.Option(min=1, max=20)] = 2,
    only: Annotated[list[str] | None, typer.Option()] = None,
    profile_lines: Annotated[
        int, typer.Option("--profile", help="Profile the Sitelog worker instead: lines to print.")
    ] = 0,
) -> None:
    if profile_lines:
        asyncio.run(profile(events, sites, profile_lines))
        return
    asyncio.run(run(events, sites, rounds, only or []))


if __name__ == "__main__":
    typer.run(main)
