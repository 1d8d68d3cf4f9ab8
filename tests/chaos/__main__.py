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

from tests.benchmarks.machine import _commit
from tests.chaos import page, report
from tests.chaos.kinds import KINDS
from tests.chaos.outcome import Outcome
from tests.chaos.run import run

SEED_MAX = 1_000_000
RATE = 300
"""Events per second, unless told otherwise."""


def main(
    *,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the first run; any, if none is given.")] = None,
    seconds: Annotated[float, typer.Option(min=5, max=3_600, help="How long each run's faults go on.")] = 180,
    runs: Annotated[int, typer.Option(min=1, max=1_000, help="How many; each has the seed after the last one's.")] = 1,
    faults: Annotated[str, typer.Option(help=f"Only these, with commas: {', '.join(KINDS)}.")] = "",
    alone: Annotated[bool, typer.Option("--alone", help="One fault at a time: how long does each one cost?")] = False,
    rate: Annotated[float, typer.Option(min=1, max=5_000, help="Events per second.")] = RATE,
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

    command = f'make chaos ARGS="{asked(first, runs, seconds, faults, alone=alone, rate=rate)}"'
    commit = _commit()  # before the page itself is a change of it
    outcomes: list[Outcome] = []
    for number in range(first, first + runs):
        again = asked(number, 1, seconds, faults, alone=alone, rate=rate)
        console.print(f"seed {number}: {seconds:g} s; again with {again}", soft_wrap=True, markup=False)
        folder = None if logs is None else logs / str(number)
        doing = run(number, seconds, kinds, per_second=rate, say=say, alone=alone, logs=folder)
        outcomes.append(asyncio.run(doing))
        report.show_outcome(console, outcomes[-1])
        # After each run, as a series takes hours: what ends it early takes nothing of what was found.
        if json:
            report.write_json(json, outcomes)
        if write_page:
            page.put(outcomes, runs, command, commit, only_recovery=alone)
    report.show_recoveries(console, outcomes)
    if not all(outcome.is_right for outcome in outcomes):
        raise typer.Exit(1)


def asked(seed: int, runs: int, seconds: float, faults: str, *, alone: bool, rate: float) -> str:
    """Return the options that do the same again."""
    options = [f"--seed {seed}"]
    options += [f"--runs {runs}"] if runs > 1 else []
    options += [f"--seconds {seconds:g}"]
    options += [f"--faults {faults.replace(' ', '')}"] if faults else []
    options += ["--alone"] if alone else []
    options += [f"--rate {rate:g}"] if rate != RATE else []
    return " ".join(options)


if __name__ == "__main__":
    typer.run(main)
