"""`sitelog replay`: fold the log again into fresh tables, and switch to them or compare them."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sitelog.cli._options import ConfigOption, JsonOption, settings_from, write_json
from sitelog.cli._printable import say
from sitelog.cli._run import EXIT_NO

if TYPE_CHECKING:
    from sitelog.agents._replay_run import Progress as Told
    from sitelog.agents.replay import Report
    from sitelog.projections._compare import Difference

app = typer.Typer()

ReadModelsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[READ_MODEL]…", help="Which read models; all of them without one.")
]
FromTopicOption = Annotated[
    bool,
    typer.Option("--from-topic", help="Fold the Kafka topics instead of the log; they must have every event yet."),
]
VerifyOption = Annotated[
    bool,
    typer.Option("--verify", "--dry-run", help="Only compare with the tables in use; exit with 1 if any row differs."),
]


@app.command()
def replay(
    read_models: ReadModelsArgument = None,
    from_topic: FromTopicOption = False,
    verify: VerifyOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> int:
    """Fold the log again from its beginning into fresh tables, and let them take the place of those in use.

    Workers go on meanwhile. When it ends early, whatever the reason, the tables in use stay.
    """
    from sitelog.agents.replay import replay  # noqa: PLC0415 - `sitelog --help` shouldn't wait for it
    from sitelog.projections._registry import load, plan  # noqa: PLC0415

    settings = settings_from(config)
    with _bar() as told:
        report = asyncio.run(
            replay(
                settings,
                plan(load()),
                read_models or (),
                source="topic" if from_topic else "log",
                verify=verify,
                progress=told,
            )
        )
    if as_json:
        write_json(_summary(report))
    else:
        _show(report)
    return EXIT_NO if report.differences else 0


@contextmanager
def _bar() -> Iterator["Told"]:
    """Show a bar with events per second and the time left, where stderr is a terminal."""
    console = Console(stderr=True)
    began = time.monotonic()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f} events/s, left:"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as progress:
        task = progress.add_task("Folding", rate=0.0, total=None)

        def told(done: int, of: int) -> None:
            progress.update(task, completed=done, total=of, rate=done / (time.monotonic() - began))

        yield told


def _rate(report: "Report") -> float:
    return report.events / report.seconds if report.seconds else 0.0


def _show(report: "Report") -> None:
    folded = f"Folded {report.events:,} events of the {report.source}"
    typer.echo(f"{folded} in {report.seconds:.1f} s, {_rate(report):,.0f} events/s")
    differing = {difference.read_model: difference for difference in report.differences or ()}
    for name, rows in report.rows.items():
        difference = differing.get(name)
        verdict = "in use now" if report.switched else "equal" if difference is None else f"{difference.rows:,} differ"
        typer.echo(f"{name}: {rows:,} rows, {verdict}")
        if difference is not None:
            _show_examples(difference)


def _show_examples(difference: "Difference") -> None:
    for example in difference.examples:
        values = ", ".join(
            f"{column} {live}" if live == fresh else f"{column} in use {live}, folded again {fresh}"
            for column, (live, fresh) in example.items()
        )
        say(f"  {values}")


def _summary(report: "Report") -> dict[str, Any]:
    return {
        "read_models": report.read_models,
        "source": report.source,
        "events": report.events,
        "seconds": round(report.seconds, 3),
        "events_per_second": round(_rate(report)),
        "rows": report.rows,
        "switched": report.switched,
        "differences": None
        if report.differences is None
        else {
            difference.read_model: {
                "rows": difference.rows,
                "examples": [
                    {column: {"in_use": live, "folded_again": fresh} for column, (live, fresh) in example.items()}
                    for example in difference.examples
                ],
            }
            for difference in report.differences
        },
    }
