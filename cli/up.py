"""`sitelog up`: starts Kafka, Postgres and workers on this machine."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from sitelog.cli._decision import confirm
from sitelog.cli._stack_options import DEFAULT_DIR, DirOption
from sitelog.deploy._folder import content, require_ours
from sitelog.deploy.stack import Stack, Wanted

app = typer.Typer(help="Start Kafka, Postgres and workers on this machine.")


@app.command()
def up(  # noqa: PLR0917 - typer's options, each given by name
    folder: DirOption = DEFAULT_DIR,
    brokers: Annotated[
        int | None, typer.Option(min=1, max=5, help="Kafka brokers of a new stack; 3 replicate. Default 1.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, max=32, help="Workers to run from now on; 1 in a new stack.")
    ] = None,
    kafka_port: Annotated[
        int | None, typer.Option(min=1, max=65_000, help="First broker's port in a new stack; else any free one.")
    ] = None,
    postgres_port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Postgres's port in a new stack; else any free one.")
    ] = None,
    postgres_bin: Annotated[
        Path | None, typer.Option(help="The folder with an installed Postgres's programs, to use that one.")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Delete this stack's data first, and begin anew.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask before deleting.")] = False,
) -> None:
    """Start what isn't running, and write the settings that every client needs. Repeating it is harmless.

    The first time it fetches Kafka with Maven. Exits with 69 if something can't be started, and says what to do.
    """
    stack = Stack(folder, os.environ, typer.echo)
    wanted = Wanted(
        brokers=brokers,
        workers=workers,
        kafka_port=kafka_port,
        postgres_port=postgres_port,
        postgres_bin=postgres_bin,
    )
    if reset:
        _reset(stack, wanted, confirmed=yes)
    config = asyncio.run(stack.up(wanted))
    typer.echo(f"Everything is up. `sitelog status` looks, `sitelog down` ends it. Configuration: {config}")
    typer.echo(f"For psql and other clients: source {folder / 'env'}")


def _reset(stack: Stack, wanted: Wanted, *, confirmed: bool) -> None:
    require_ours(stack.folder)
    doomed = content(stack.folder)
    if not doomed:
        return
    stack.require_possible(wanted)
    typer.echo(f"This ends the stack in {stack.folder} and deletes, with every event and row in it:")
    for path in doomed:
        typer.echo(f"  {path.name}{'/' if path.is_dir() else ''}")
    if not confirmed:
        confirm("Delete them?")
    asyncio.run(stack.reset())
