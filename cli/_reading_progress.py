"""How far a file has been read: a bar where stderr is a terminal, nothing where it isn't."""

import os
import stat
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from sitelog.cli._printable import printable


class ReadingProgress:
    """A bar of the bytes read, with the number of events; a pipe has no length, so that its bar only moves."""

    def __init__(self, descriptor: int) -> None:
        """Take what is read from; the bar begins with `with`."""
        information = os.fstat(descriptor)
        total = information.st_size if stat.S_ISREG(information.st_mode) else None
        self._console = Console(stderr=True, soft_wrap=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[events]:,} events"),
            BarColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("", total=total, events=0)

    def __enter__(self) -> Self:
        """Show the bar."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        self._progress.stop()

    def advance(self, events: int, bytes_read: int) -> None:
        """Show how many events have arrived, and how far the reading is."""
        self._progress.update(self._task, completed=bytes_read, events=events)

    def write(self, line: str) -> None:
        """Write a line to stderr, above the bar."""
        self._console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Take the bar away before something else is written."""
        self._progress.stop()
