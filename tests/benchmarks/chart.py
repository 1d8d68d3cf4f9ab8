"""Draws figures as bars, in SVG: it can be read beside the table, and compared from one commit to the next."""

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

NAMES_WIDTH: Final = 130
BARS_WIDTH: Final = 480
FIGURES_WIDTH: Final = 90
BAR_HEIGHT: Final = 20
ROW_HEIGHT: Final = 30
TEXT: Final = "#6e7781"
"""Readable on a light page and on a dark one."""
OWN: Final = "#1a7f37"
OTHERS: Final = "#8c959f"


def bars(title: str, values: Sequence[tuple[str, float]], own: str) -> str:
    """Return a bar for each name and value, the names that begin with `own` in another colour; zero is at the left."""
    most = max(value for _, value in values)
    height = ROW_HEIGHT * (len(values) + 1)
    width = NAMES_WIDTH + BARS_WIDTH + FIGURES_WIDTH
    rows = [_row(number, name, value, value / most, own) for number, (name, value) in enumerate(values, 1)]
    font = f'font-family="sans-serif" font-size="13" fill="{TEXT}"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img" {font}>',
        f"<title>{escape(title)}</title>",
        f'<text x="{NAMES_WIDTH}" y="{ROW_HEIGHT - 12}" font-weight="bold">{escape(title)}</text>',
    ]
    return "\n".join([*head, *rows, "</svg>\n"])


def _row(number: int, name: str, value: float, share: float, own: str) -> str:
    top = ROW_HEIGHT * number
    length = BARS_WIDTH * share
    base = top + BAR_HEIGHT - 5
    return (
        f'<text x="{NAMES_WIDTH - 8}" y="{base}" text-anchor="end">{escape(name)}</text>'
        f'<rect x="{NAMES_WIDTH}" y="{top}" width="{length:.1f}" height="{BAR_HEIGHT}" '
        f'fill="{OWN if name.startswith(own) else OTHERS}"/>'
        f'<text x="{NAMES_WIDTH + length + 8:.1f}" y="{base}">{value:,.0f}</text>'
    )
