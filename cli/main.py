"""The `sitelog` command: its subcommands by name, each read from its own file when it is called."""

import logging
import os
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from sitelog.cli import _terminated
from sitelog.cli._run import EXIT_INTERRUPTED, exit_code_of
from sitelog.streams.errors import ConfigError

COMMANDS: Final = {
    # A line per command: cli/<name>.py defines its `app`.
    "append": "Append events that are written as lines of JSON.",
    "config": "Check the configuration, or show it without its secrets.",
    "db": "Set the database up, or check that it is.",
    "demo": "Start everything, append the life of real sites, and check every count.",
    "down": "End what `sitelog up` started; the data stays.",
    "events": "List the events, or show what one looks like.",
    "lag": "Show how far each consumer is behind, in events and in seconds.",
    "log": "Show the newest events of the log, and those that come.",
    "parked": "List what is put aside; put it in motion again, or discard it.",
    "position": "Show where consumers stand, or move one by hand.",
    "replay": "Fold the log again into fresh tables, and switch to them or compare them.",
    "site": "Tell everything about one site.",
    "status": "Show what of the stack runs, answers and is ready.",
    "territory": "Tell everything about one territory.",
    "topics": "Create the Kafka topics that the configuration names, or check them.",
    "up": "Start Kafka, Postgres and workers on this machine.",
    "worker": "Run a consumer until it is told to stop.",
}


class Commands(TyperGroup):
    """Lists the commands without importing them: `sitelog --help` waits for neither Kafka's client nor Faust."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, sentence in COMMANDS.items():
            self.add_command(TyperCommand(name, help=sentence))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Import the command that was asked for; a file that fails to import fails loudly here."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in COMMANDS:
            subcommand = import_module(f"sitelog.cli.{name}").app
            subcommand._add_completion = False  # noqa: SLF001 - typer would list its own two options in every help
            _terminated.end_at_once(at_once=False)
            command = get_command(subcommand)
        return name, command, rest


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"sitelog {version('sitelog')}")
        raise typer.Exit


@app.callback()
def sitelog(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Keep every change to sites, contracts and territories in a log, and the read models in step with it."""


def run() -> None:
    """Run the command that the process was started with, and end the process with its exit code."""
    # Libraries log to stderr when nobody configures logging; here the error line says it all.
    logging.getLogger().addHandler(logging.NullHandler())
    _terminated.listen()
    code = exit_code_of(lambda: app(_arguments(), standalone_mode=False))
    sys.exit(_terminated.EXIT_TERMINATED if _terminated.was_told() and code == EXIT_INTERRUPTED else code)


def _arguments() -> list[str]:
    """Return what we were started with; raises ConfigError for what Kafka, Postgres and JSON can't have."""
    for argument in sys.argv[1:]:
        given = os.fsencode(argument)
        try:
            given.decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"expected arguments in UTF-8, got {given!r}") from error
    return sys.argv[1:]
