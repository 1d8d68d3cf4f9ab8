"""`sitelog log`: the newest events of the log, and those that come."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any, Final

import typer

from sitelog.cli._entries import Told, line, plain
from sitelog.cli._figures import moment, parse_moment
from sitelog.cli._options import INTEGER_MAX, ConfigOption, JsonOption, settings_from, write_json_line
from sitelog.cli._run import EXIT_NO
from sitelog.cli._terminal import Terminal
from sitelog.projections._database import session
from sitelog.projections._follow import Bell, follow
from sitelog.projections._install import refuse_other_version
from sitelog.projections._look import looking
from sitelog.projections._look_log import Entry, Reader, Stretch, Wanted, stretches, tail
from sitelog.streams.errors import ConfigError
from sitelog.streams.events import EVENT_TYPES
from sitelog.streams.settings import Settings

NEWEST: Final = 20

app = typer.Typer(help="Show the newest events of the log, and those that come.")


def _known_types(types: list[str] | None) -> list[str] | None:
    for one in types or ():
        if one not in EVENT_TYPES:
            raise typer.BadParameter(f"expected one of {', '.join(EVENT_TYPES)}, got {one!r}")
    return types


@app.command()
def show(  # noqa: PLR0917 - typer's options, each given by name
    config: ConfigOption = None,
    newest: Annotated[
        int | None,
        typer.Option(
            "-n", "--newest", min=0, max=INTEGER_MAX, help=f"So many of the newest; {NEWEST}, or all since --since."
        ),
    ] = None,
    following: Annotated[bool, typer.Option("-f", "--follow", help="Go on with each new event until Ctrl-C.")] = False,
    entity: Annotated[str | None, typer.Option(help="Only of this site or territory.")] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", callback=_known_types, help="Only of this type; may be repeated.")
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Only of this topic.")] = None,
    partition: Annotated[
        int | None, typer.Option(min=0, max=INTEGER_MAX, help="Only of the partitions with this number.")
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(parser=parse_moment, metavar="TIME", help="Only those appended since; ISO 8601.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(parser=parse_moment, metavar="TIME", help="Only those appended before; ISO 8601.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Show the newest events that were applied, in this order; with --json each as one line.

    Exits with 0, with 1 if there is no such event, and with 69 if Postgres can't be reached.
    """
    if following and until is not None:
        raise typer.BadParameter("expected --follow or --until: what comes is appended later")
    if since is not None and until is not None and until <= since:
        raise typer.BadParameter(f"expected an end after --since {moment(since)}, got --until {moment(until)}")
    wanted = Wanted(entity, types or None, topic, partition, since, until)
    limit = NEWEST if newest is None and since is None else newest
    shown = asyncio.run(_show(settings_from(config), wanted, limit, following=following, as_json=as_json))
    return 0 if shown else EXIT_NO


async def _show(settings: Settings, wanted: Wanted, limit: int | None, *, following: bool, as_json: bool) -> int:
    """Write events as they come, and return how many; none is kept."""
    terminal = Terminal()
    shown = 0
    events = _followed(settings, wanted, limit) if following else _newest(settings, wanted, limit)
    async with aclosing(events):
        async for told in events:
            shown += 1
            if as_json:
                write_json_line(plain(told))
            else:
                terminal.print(line(told), soft_wrap=True)
    return shown


async def _newest(settings: Settings, wanted: Wanted, limit: int | None) -> AsyncGenerator[Told]:
    # Rare events are searched for in all of the log, and what is found is read as slowly as whoever reads it.
    async with looking(settings, "log", bounded=False) as connection:
        parts = await _parts(connection, wanted)
        async with aclosing(_told(connection, tail(connection, parts, wanted, limit))) as events:
            async for told in events:
                yield told


async def _followed(settings: Settings, wanted: Wanted, limit: int | None) -> AsyncGenerator[Told]:
    """Yield the newest events and then those that come; a replica can't be listened to, so the primary is asked."""
    async with session(settings.database_config.primary, application="sitelog log") as connection:
        await refuse_other_version(connection)
        bell = Bell(connection)
        await bell.listen()
        parts = await _parts(connection, wanted)
        for entries in (tail(connection, parts, wanted, limit), follow(connection, bell, parts, wanted)):
            async with aclosing(_told(connection, entries)) as events:
                async for told in events:
                    yield told


async def _told(connection: Any, entries: AsyncGenerator[Entry]) -> AsyncGenerator[Told]:
    reader = Reader(connection)
    async with aclosing(entries):
        async for entry in entries:
            yield Told(entry, await reader.event(entry))


async def _parts(connection: Any, wanted: Wanted) -> list[Stretch]:
    parts = await stretches(connection, wanted)
    if not parts:
        partition = "" if wanted.partition is None else f"[{wanted.partition}]"
        raise ConfigError(f"the log has no partition {wanted.topic or ''}{partition}: `sitelog lag` lists them")
    return parts
