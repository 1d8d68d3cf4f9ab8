"""Where tables and lines for people go."""

from typing import NoReturn

from rich.console import Console


class Terminal(Console):
    """Writes to stdout; a reader that has gone is told to `_run` instead of ending the process here."""

    def on_broken_pipe(self) -> NoReturn:
        """Raise what rich has caught."""
        raise BrokenPipeError
