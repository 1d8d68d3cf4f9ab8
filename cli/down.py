"""`sitelog down`: ends the embedded stack."""

import asyncio
import os

import typer

from sitelog.cli._stack_options import DEFAULT_DIR, DirOption
from sitelog.deploy.stack import Stack

app = typer.Typer(help="End what `sitelog up` started; the data stays.")


@app.command()
def down(folder: DirOption = DEFAULT_DIR) -> None:
    """End workers, Postgres and Kafka, in this order; the data stays. Harmless if nothing runs.

    What doesn't end by itself is killed: it takes some seconds, and 100 at most.
    """
    ended = asyncio.run(Stack(folder, os.environ, typer.echo).down())
    typer.echo(f"Ended {', '.join(ended)}" if ended else f"Nothing was running in {folder}")
