"""Text that does nothing to a terminal: ids, names and reasons are whatever their producers have sent."""

import unicodedata
from typing import Final

import typer

_JOINERS: Final = "\u200c\u200d"
"""They shape the letters beside them: Persian and Hindi names are spelled with them."""


def printable(text: str) -> str:
    r"""Return `text` with each character that isn't printable as Python escapes it: `\x1b`, `\n`, `\u202e`.

    Spaces stay, whatever their width, and so does what joins letters or parts them.
    """
    if text.isprintable():
        return text
    return "".join(one if _is_shown(one) else one.encode("unicode_escape").decode() for one in text)


def _is_shown(one: str) -> bool:
    return one.isprintable() or one in _JOINERS or unicodedata.category(one) == "Zs"


def say(line: str) -> None:
    """Write one line to stdout."""
    typer.echo(printable(line))
