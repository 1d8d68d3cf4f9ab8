"""Tells what is known of one site or territory, as a person would read it, or as JSON."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final, NamedTuple

import typer
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Column, Table
from rich.text import Text

from sitelog.cli._entries import Told, plain
from sitelog.cli._figures import counted, moment
from sitelog.cli._terminal import Terminal, text
from sitelog.cli._words import composed, label
from sitelog.projections._look_entity import SHOWN, Found, Story, story
from sitelog.projections._look_log import Reader

CELL_CHARACTERS_MAX: Final = 60
_NOBODY_YET: Final = {"valid_until": "until now"}


NewestOption = Annotated[
    int, typer.Option("-n", "--newest", min=1, max=100_000, help="So many of the newest events at most.")
]
NEWEST: Final = 100


class Telling(NamedTuple):
    """A story, and its newest events decoded."""

    story: Story
    told: list[Told]


async def look_at(connection: Any, entity_type: str, entity_id: str, newest: int) -> Telling:
    """Return everything about a site or territory."""
    found = await story(connection, entity_type, entity_id, newest)
    reader = Reader(connection)
    return Telling(found, [Told(entry, await reader.event(entry)) for entry in found.entries])


def as_plain(telling: Telling) -> dict[str, Any]:
    """Return everything as JSON has it."""
    story, told = telling
    return {
        "id": story.entity_id,
        "rows": story.rows,
        "events": story.events,
        "newest": [plain(one) for one in told],
        "conflicts": [asdict(one) for one in story.conflicts],
        "parked_events": story.parked_events,
        "parked": [asdict(one) for one in story.parked],
    }


def write_parts(telling: Telling, heading: Text) -> None:
    """Write it for a person, lines as long as they are."""
    terminal = Terminal()
    terminal.print(heading)
    for part in _parts(telling):
        terminal.print(part, soft_wrap=isinstance(part, Text))


def _parts(telling: Telling) -> Iterator[RenderableType]:
    """Yield what to print, from what it is today down to what stops it."""
    story, told = telling
    for name, rows in story.rows.items():
        if rows:
            yield Text()
            yield text(label(name), style="bold")
            yield _fields(rows[0]) if name == next(iter(story.rows)) else _table(rows, story.entity_id)
    yield from _events(story, told)
    yield from _parked(story)


def _fields(row: dict[str, Any]) -> Table:
    """Return one row from top to bottom, without what is null."""
    grid = Table.grid(Column(overflow="fold"), Column(overflow="fold"), padding=(0, 2, 0, 2))
    for name, value in row.items():
        if value is not None:
            grid.add_row(text(label(name), style="dim"), text(_cell(name, value)))
    return grid


def _table(rows: Sequence[dict[str, Any]], entity_id: str) -> Table:
    """Return rows as a table, without columns that say nothing or only whose rows these are."""
    names = [
        name
        for name in rows[0]
        if name not in SHOWN
        and any(row[name] is not None or name in _NOBODY_YET for row in rows)
        and any(row[name] != entity_id for row in rows)
    ]
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in names:
        grid.add_column(label(name), overflow="fold")
    for row in rows:
        grid.add_row(*(text(_cell(name, row[name])) for name in names))
    return grid


def _cell(name: str, value: Any) -> str:
    if value is None:
        return _NOBODY_YET.get(name, "-")
    whole = composed(value)
    return whole if len(whole) <= CELL_CHARACTERS_MAX else f"{whole[: CELL_CHARACTERS_MAX - 1]}…"


def _events(story: Story, told: Sequence[Told]) -> Iterator[Text]:
    newest = f", the newest {len(told):,} of them" if len(told) < story.events else ""
    yield Text()
    yield text(f"{counted(story.events, 'event')}{newest}", style="bold")
    conflicts: defaultdict[tuple[str, int, int], list[Found]] = defaultdict(list)
    for one in story.conflicts:
        conflicts[one.topic, one.partition, one.log_seq].append(one)
    for one_told in told:
        entry = one_told.entry
        yield text(
            "  ",
            (moment(entry.event_time), "dim"),
            "  ",
            (entry.event_type, "bold"),
            *_by(one_told),
            ("  " + one_told.origin, "dim"),
        )
        if one_told.words:
            yield text(f"      {one_told.words}")
        for conflict in conflicts[entry.topic, entry.partition, entry.log_seq]:
            yield text(f"      {_conflict(conflict)}", style="yellow")


def _by(told: Told) -> Iterable[tuple[str, str]]:
    """Name the system that said so, and who caused it."""
    event: Any = told.event
    source, actor = getattr(event, "source_system", None), getattr(event, "actor", None)
    if source is not None:
        yield (f"  by {source}" if actor is None else f"  by {actor} via {source}", "")


def _conflict(one: Found) -> str:
    decided = "the new value was taken" if one.resolution == "last_write_wins" else "the new value was refused"
    if one.reason == "deleted":
        return f"conflict: {label(one.field)}: the row is deleted; {decided}"
    seen = "at version" if one.reason == "version" else "with"
    return f"conflict: {label(one.field)}: its producer had seen it {seen} {one.expected}, found {one.found}; {decided}"


def _parked(story: Story) -> Iterator[Text]:
    if not story.parked:
        return
    first = f", the first {len(story.parked):,} of them" if len(story.parked) < story.parked_events else ""
    yield Text()
    yield text(f"{counted(story.parked_events, 'event')} not applied{first}", style="bold red")
    for one in story.parked:
        yield text(
            f"  {one.parked_id}  {one.status} since {moment(one.parked_at)}  "
            f"{one.topic}[{one.partition}]@{one.kafka_offset}  {one.reason}: {one.message}"
        )
        if one.closed_at is not None:
            yield text(f"      discarded {moment(one.closed_at)} by {one.closed_by}: {one.close_reason or 'a repeat'}")
