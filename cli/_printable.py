"""Text that does nothing to a terminal: ids, names and reasons are whatever their producers have sent."""

import typer


def printable(text: str) -> str:
    r"""Return `text` with each character that isn't printable as Python escapes it: `\x1b`, `\n`, `\u202e`."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def say(line: str) -> None:
    """Write one line to stdout."""
    typer.echo(printable(line))
