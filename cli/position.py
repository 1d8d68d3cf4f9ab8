"""`sitelog position`: where consumers stand, and the switch that moves one by hand."""

import asyncio
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from sitelog.cli._decision import ByOption, ReasonOption, confirm
from sitelog.cli._figures import moment, number
from sitelog.cli._moving import consequences, offset_of
from sitelog.cli._options import INTEGER_MAX, ConfigOption, JsonOption, settings_from, write_json
from sitelog.cli._terminal import Terminal, text
from sitelog.projections._database import session
from sitelog.projections._install import owner_of, refuse_other_version
from sitelog.projections._look import looking
from sitelog.projections._look_positions import Change, Standing, changes, positions
from sitelog.projections._read_models import PROJECTOR
from sitelog.projections._reposition import Reposition, Seen, reposition, see
from sitelog.streams._offsets import Bounds, Offsets, Place
from sitelog.streams.errors import ConfigError, UnavailableError
from sitelog.streams.settings import DatabaseSettings, Settings, WorkerSettings

CHANGES_SHOWN: Final = 20

app = typer.Typer(no_args_is_help=True, help="Show where consumers stand, or move one by hand.")


@app.command()
def show(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show every position as Postgres has it, and who moved one by hand and why; Kafka isn't asked.

    Exits with 69 if Postgres can't be reached.
    """
    asyncio.run(_show(settings_from(config), as_json=as_json))


async def _show(settings: Settings, *, as_json: bool) -> None:
    async with looking(settings, "position") as connection:
        standings = await positions(connection)
        moved = await changes(connection, CHANGES_SHOWN)
    if as_json:
        write_json({"positions": [asdict(one) for one in standings], "changes": [asdict(one) for one in moved]})
        return
    terminal = Terminal()
    terminal.print(_table(standings))
    if moved:
        terminal.print("Moved by hand, the newest first:")
    for one in moved:
        terminal.print(text(_told(one)), soft_wrap=True)


def _table(standings: list[Standing]) -> Table:
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    grid.add_column("consumer", overflow="fold")
    grid.add_column("partition", overflow="fold")
    for heading in ("position", "log seq", "epoch"):
        grid.add_column(heading, justify="right", overflow="fold")
    grid.add_column("owner", overflow="fold")
    for one in standings:
        grid.add_row(
            text(one.consumer),
            text(f"{one.topic}[{one.partition}]"),
            number(one.next_offset),
            number(one.log_seq),
            number(one.epoch),
            text(one.owner),
        )
    return grid


def _told(one: Change) -> str:
    before = "never claimed" if one.from_offset is None else f"{one.from_offset:,}"
    return (
        f"  {moment(one.changed_at)}  {one.consumer} in {one.topic}[{one.partition}]: {before} → {one.to_offset:,} "
        f"by {one.changed_by}: {one.reason}"
    )


@app.command("set")
def move(  # noqa: PLR0917 - typer's arguments and options
    topic: Annotated[str, typer.Argument(help="The topic.")],
    partition: Annotated[int, typer.Argument(min=0, max=INTEGER_MAX, help="The partition's number.")],
    offset: Annotated[str, typer.Argument(help="The offset to go on with; or `start` or `end` of what Kafka has.")],
    reason: ReasonOption,
    by: ByOption,
    consumer: Annotated[str, typer.Option(help="Whose position.")] = PROJECTOR,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask before moving it.")] = False,
    config: ConfigOption = None,
) -> None:
    """Let a consumer go on somewhere else, after a worker has refused to: exit codes 73, 74 and 76.

    What is skipped is never applied, and is said before. What is read again changes nothing: the log has each event
    once. Needs database_config.owner. Exits with 2 for an offset that the topic doesn't have or a consumer that
    nobody knows, with 70 if somebody else has moved it meanwhile, and with 69 if Kafka or Postgres can't be reached.
    """
    settings = settings_from(config)
    owner = owner_of(settings)
    place = Place(topic, partition)
    bounds = asyncio.run(_bounds(settings, place))
    decided = Reposition(consumer, *place, offset_of(offset, place, bounds), by, reason)
    seen = None
    if not yes:
        seen = asyncio.run(_see(owner, decided))
        _say(decided, seen.next_offset, bounds)
        confirm("Move it?")  # outside of asyncio, which would take a Ctrl-C for itself
    before = asyncio.run(_move(owner, settings.worker, decided, seen))
    if yes:
        _say(decided, before, bounds)
    typer.echo(
        "A worker that holds the partition is fenced: restart it. By itself it notices no sooner than with the next "
        "event there, and ends with 75"
    )


async def _bounds(settings: Settings, place: Place) -> Bounds:
    async with Offsets(settings) as offsets:
        known = await offsets.bounds([place])
    if place not in known:
        raise ConfigError(f"Kafka has no {place.topic}[{place.partition}]: `sitelog lag` lists what it has")
    bounds = known[place]
    if bounds is None:
        raise UnavailableError(f"{place.topic}[{place.partition}] has no leader: are its brokers running?")
    return bounds


async def _see(owner: DatabaseSettings, decided: Reposition) -> Seen:
    async with session(owner, application="sitelog position") as connection:
        await refuse_other_version(connection)
        return await see(connection, decided.consumer, decided.topic, decided.partition)


async def _move(owner: DatabaseSettings, worker: WorkerSettings, decided: Reposition, seen: Seen | None) -> int | None:
    async with session(owner, application="sitelog position", worker=worker) as connection:
        await refuse_other_version(connection)
        return await reposition(connection, decided, seen)


def _say(decided: Reposition, before: int | None, bounds: Bounds) -> None:
    where = f"{decided.consumer} in {decided.topic}[{decided.partition}]"
    typer.echo(f"{where}: {'never claimed' if before is None else f'{before:,}'} → {decided.offset:,}")
    for sentence in consequences(before, decided.offset, bounds):
        typer.echo(f"  {sentence}")
