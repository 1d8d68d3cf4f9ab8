"""What commands have that decide something for good: who says so and why, which are recorded, and a question before."""

import os
import sys
from getpass import getuser
from typing import Annotated

import typer

from sitelog.cli._printable import printable
from sitelog.streams.errors import ConfigError


def _myself() -> str:
    """Return the name that this process's user logs in with; a container's user may have none."""
    try:
        return getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def _said(text: str) -> str:
    if not text.strip() or printable(text) != text:
        raise typer.BadParameter(f"expected a line of text, got {text!r}")
    return text.strip()


ReasonOption = Annotated[
    str, typer.Option("--reason", callback=_said, help="Why: it is recorded, for those who ask later.")
]
ByOption = Annotated[
    str,
    typer.Option(
        "--by", callback=_said, default_factory=_myself, show_default="you", help="Who decided: recorded too."
    ),
]


def confirm(question: str) -> None:
    """Ask, and return after a yes; raise ConfigError after a no, and where nobody is there to answer."""
    try:
        # None where it was closed before we began, as by `<&-`.
        if sys.stdin is not None and typer.confirm(question):
            return
    except typer.Abort as unanswered:
        if isinstance(unanswered.__context__, KeyboardInterrupt):
            raise
        typer.echo()  # the question has no line end of its own
    raise ConfigError("not confirmed, so nothing was done: --yes goes without asking")
