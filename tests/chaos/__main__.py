"""`make chaos`: break everything, again and again, and see that nothing is lost, doubled, disordered or wrong.

Each run brings its own three brokers, Postgres and workers, and leaves nothing behind.
"""

import asyncio
import logging
import secrets
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.chaos import page, report
from tests.chaos.kinds import KINDS
from tests.chaos.outcome import Outcome
from tests.chaos.run import run

SEED_MAX = 1_000_000


def main(
    *,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the first run; any, if none is given.")] = None,
    seconds: Annotated[float, typer.Option(min=5, max=3_600, help="How long each run's faults go on.")] = 180,
    runs: Annotated[int, typer.Option(min=1, max=1_000, help="How many; each has the seed after the last one's.")] = 1,
    faults: Annotated[str, typer.Option(help=f"Only these, with commas: {', '.join(KINDS)}.")] = "",
    alone: Annotated[bool, typer.Option("--alone", help="One fault at a time: how long does each one cost?")] = False,
    rate: Annotated[float, typer.Option(min=1, max=5_000, help="Events per second.")] = 300,
    json: Annotated[Path | None, typer.Option(help="Write every figure to this file, too.")] = None,
    logs: Annotated[Path | None, typer.Option(help="Copy everybody's logs here, a folder for each seed.")] = None,
    write_page: Annotated[bool, typer.Option("--page", help="Put the outcomes into docs/reliability.md, too.")] = False,
) -> None:
    """Run schedules of faults, and check what is left; exit 1 if anything is wrong."""
    kinds = [name.strip() for name in faults.split(",") if name.strip()] or list(KINDS)
    unknown = set(kinds) - KINDS.keys()
    if unknown:
        raise typer.BadParameter(f"expected some of {', '.join(KINDS)}, got {', '.join(sorted(unknown))}")
    first = secrets.randbelow(SEED_MAX) if seed is None else seed
    console = Console(highlight=False)
    # A producer's client says that a broker is away a hundred times a second.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

    def say(line: str) -> None:
        console.print(line, style="dim", markup=False, highlight=False)

    outcomes: list[Outcome] = []
    try:
        for number in range(first, first + runs):
            console.print(f"seed {number}: {seconds:g} s; again with --seed {number} --seconds {seconds:g}")
            folder = None if logs is None else logs / str(number)
            doing = run(number, seconds, kinds, per_second=rate, say=say, alone=alone, logs=folder)
            outcomes.append(asyncio.run(doing))
            report.show_outcome(console, outcomes[-1])
    finally:
        if outcomes:
            report.show_recoveries(console, outcomes)
            if json:
                report.write_json(json, outcomes)
            if write_page:
                asked = f"--seed {first} --runs {runs} --seconds {seconds:g}"
                asked += (f" --faults {faults}" if faults else "") + (" --alone" if alone else "")
                page.put(outcomes, runs, f'make chaos ARGS="{asked}"', only_recovery=alone)
    if not all(outcome.is_right for outcome in outcomes):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
