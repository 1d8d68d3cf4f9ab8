"""Where tables and lines for people go, and the one place where their text is made."""

from typing import Any, Final, NoReturn

from rich.console import Console
from rich.text import Text

from sitelog.cli._printable import printable

AS_WIDE_AS_IT_IS: Final = 1_000_000


class Terminal(Console):
    """Writes to stdout; a reader that has gone is told to `_run` instead of ending the process here."""

    def __init__(self, *, width_elsewhere: int = AS_WIDE_AS_IT_IS, **options: Any) -> None:
        """Take rich's options, and the width where there is no terminal: by itself nothing is folded there."""
        super().__init__(**options)
        if not self.is_terminal:
            self.width = width_elsewhere

    def on_broken_pipe(self) -> NoReturn:
        """Raise what rich has caught."""
        raise BrokenPipeError


def text(*parts: str | tuple[str, str], style: str = "") -> Text:
    """Return parts, each alone or with its style, on one line; what isn't printable is escaped."""
    return Text.assemble(
        *(printable(part) if isinstance(part, str) else (printable(part[0]), part[1]) for part in parts), style=style
    )
