"""Numbers, times and ages as a person reads them; and times as a person writes them."""

from datetime import UTC, datetime
from typing import Final

import typer

_AGES: Final = ((86_400 * 2, 86_400, "d"), (3_600 * 2, 3_600, "h"), (120, 60, "min"))
_TENTHS_BELOW_SECONDS: Final = 10


def number(value: int | None) -> str:
    """Return a number with its thousands apart, a dash for None."""
    return "-" if value is None else f"{value:,}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return a number of things in words: `1 event`, `2 events`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def age(seconds: float | None) -> str:
    """Return a duration in the largest unit of which it has two, a dash for None."""
    if seconds is None:
        return "-"
    for least, unit, name in _AGES:
        if seconds >= least:
            return f"{seconds / unit:.0f} {name}"
    if seconds == 0:
        return "0 s"
    return f"{seconds:.1f} s" if seconds < _TENTHS_BELOW_SECONDS else f"{seconds:.0f} s"


def moment(at: datetime | None) -> str:
    """Return a time in UTC to the second, a dash for None."""
    return "-" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def parse_moment(text: str) -> datetime:
    """Read a time as ISO 8601 writes it; without an offset it is UTC, and a day is its beginning.

    Raises typer's BadParameter for anything else.
    """
    try:
        at = datetime.fromisoformat(text)
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        at.astimezone(UTC)  # what follows does it, and the first and last hours of all overflow there
    except ValueError:
        raise typer.BadParameter(f"expected a time such as 2026-11-21 or 2026-11-21T18:30:00Z, got {text!r}") from None
    except OverflowError:
        raise typer.BadParameter(f"expected a time from year 1 to 9999 in UTC, got {text!r}") from None
    return at
