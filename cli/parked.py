"""`sitelog parked`: what is put aside, and how to put it in motion again or discard it."""

import asyncio
import base64
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import orjson
import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from sitelog.cli._decision import ByOption, ReasonOption
from sitelog.cli._figures import counted, moment, number
from sitelog.cli._hexdump import hexdump
from sitelog.cli._options import (
    BIGINT_MAX,
    ConfigOption,
    JsonOption,
    refuse_before_subcommand,
    settings_from,
    write_json,
    write_json_line,
)
from sitelog.cli._printable import say
from sitelog.cli._run import EXIT_NO
from sitelog.cli._terminal import Terminal, text
from sitelog.cli._unparking import line, plain, unparking
from sitelog.projections import _look_parked as look
from sitelog.projections._look import looking
from sitelog.projections._unpark import Discard
from sitelog.streams.settings import Settings

app = typer.Typer(help="List what is put aside; put it in motion again, or discard it.")

LimitOption = Annotated[int, typer.Option(min=1, max=100_000, help="So many entities at most.")]
WhyOption = Annotated[str | None, typer.Option("--reason", help="Only those stopped for this one, as `list` says it.")]
ParkedIdArgument = Annotated[
    int, typer.Argument(metavar="PARKED_ID", max=BIGINT_MAX, help="The event's number, as `list` shows it.")
]
LIMIT = 100


@app.callback(invoke_without_command=True)
def parked(
    context: typer.Context,
    config: ConfigOption = None,
    reason: WhyOption = None,
    limit: LimitOption = LIMIT,
    as_json: JsonOption = False,
) -> None:
    """List what is put aside; put it in motion again, or discard it."""
    refuse_before_subcommand(context)
    if context.invoked_subcommand is None:
        asyncio.run(_list(settings_from(config), reason, limit, as_json=as_json))


@app.command("list")
def show_all(
    config: ConfigOption = None, reason: WhyOption = None, limit: LimitOption = LIMIT, as_json: JsonOption = False
) -> None:
    """List the entities that are stopped: by which event, why, since when, and how many are behind that one.

    Exits with 69 if Postgres can't be reached.
    """
    asyncio.run(_list(settings_from(config), reason, limit, as_json=as_json))


async def _list(settings: Settings, reason: str | None, limit: int, *, as_json: bool) -> None:
    async with looking(settings, "parked") as connection:
        counts = await look.counts(connection)
        entities = await look.entities(connection, reason, limit)
    if as_json:
        write_json({**asdict(counts), "stopped": [asdict(one) for one in entities]})
        return
    terminal = Terminal()
    if entities:
        terminal.print(_table(entities))
    more = f", the first {counted(len(entities), 'row')} shown" if len(entities) == limit else ""
    stopped = counted(counts.entities, "entity", "entities")
    reasons = ", ".join(f"{why} {number(count)}" for why, count in counts.reasons.items())
    why = f" ({reasons})" if reasons else ""
    terminal.print(text(f"{counted(counts.events, 'event')} put aside, {stopped} stopped{why}{more}"))


def _table(entities: list[look.ParkedEntity]) -> Table:
    grid = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("event", "entity", "since", "behind", "reason"):
        grid.add_column(heading, justify="right" if heading in {"event", "behind"} else "left", overflow="fold")
    for one in entities:
        grid.add_row(
            str(one.parked_id),
            text(one.entity_id or "-"),
            moment(one.since),
            number(one.behind),
            text(f"{one.reason}: {one.message}"),
        )
    return grid


@app.command()
def show(parked_id: ParkedIdArgument, config: ConfigOption = None, as_json: JsonOption = False) -> int:
    """Show one event with its bytes, headers and reason; what was applied or discarded since, too.

    Exits with 1, and with --json writes null, if there is none of this number.
    """
    return asyncio.run(_show(settings_from(config), parked_id, as_json=as_json))


async def _show(settings: Settings, parked_id: int, *, as_json: bool) -> int:
    async with looking(settings, "parked") as connection:
        record = await look.record(connection, parked_id)
    if record is None:
        if as_json:
            write_json(None)
        else:
            say(f"No event was ever put aside as {parked_id}")
        return EXIT_NO
    headers = [] if record.headers is None else orjson.loads(record.headers)
    if as_json:
        write_json(
            {
                **asdict(record.event),
                "key": _base64(record.key),
                "value": _base64(record.value),
                "headers": headers,
            }
        )
        return 0
    _write(record, headers)
    return 0


def _write(record: look.ParkedRecord, headers: list[list[str]]) -> None:
    terminal = Terminal()
    grid = Table.grid(Column(overflow="fold"), Column(overflow="fold"), padding=(0, 2, 0, 0))
    for name, value in asdict(record.event).items():
        if value is not None:
            shown = moment(value) if isinstance(value, datetime) else str(value)
            grid.add_row(text(name.replace("_", " "), style="dim"), text(shown))
    for name, value in headers:
        grid.add_row(text(f"header {name}", style="dim"), text(repr(base64.b64decode(value))))
    terminal.print(grid)
    for name, data in (("key", record.key), ("value", record.value)):
        terminal.print(f"\n{name}: {'none' if data is None else f'{len(data):,} bytes'}")
        for row in hexdump(data or b""):
            terminal.print(text(row), soft_wrap=True)


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


@app.command()
def retry(
    entity: Annotated[str | None, typer.Argument(help="The site or territory; or --all.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are stopped.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Take the parked events of an entity again, in their order: once the reason is gone, it moves again.

    Workers may run meanwhile. Each entity moves on as far as it can; every event is applied once.
    With --json each is one line. Exits with 0, with 1 if one is still stopped or the one named was not stopped, with 69
    if Postgres or Kafka can't be reached, and with 80 if a worker that runs has another conflict policy or database.
    """
    if (entity is None) != everything:
        raise typer.BadParameter("expected either the id of a site or territory, or --all")
    return asyncio.run(_retry(settings_from(config), entity, as_json=as_json))


async def _retry(settings: Settings, entity_id: str | None, *, as_json: bool) -> int:
    tried = stopped = 0
    async with unparking(settings, "parked retry") as bench:
        async for entity in bench.unpark.stopped(bench.connection, entity_id):
            moved = await bench.unpark.retry(bench.connection, entity)
            tried += 1
            stopped += moved.left > 0
            if as_json:
                write_json_line(plain(moved))
            else:
                say(line(moved))
    if not tried and not as_json:
        say("Nothing is stopped" if entity_id is None else f"{entity_id} is not stopped")
    unknown = entity_id is not None and not tried
    return EXIT_NO if stopped or unknown else 0


@app.command()
def discard(
    parked_id: ParkedIdArgument,
    reason: ReasonOption,
    by: ByOption,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Never apply this event; those behind it are taken again at once. Nothing is deleted: `show` still shows it.

    Exits with 0 even if the entity is stopped by another event now, with 1, and null as JSON, if the event isn't open,
    and as `retry` with 69 and 80.
    """
    return asyncio.run(
        _discard(settings_from(config), Discard(parked_id, datetime.now(UTC), by, reason), as_json=as_json)
    )


async def _discard(settings: Settings, decided: Discard, *, as_json: bool) -> int:
    async with unparking(settings, "parked discard") as bench:
        moved = await bench.unpark.discard(bench.connection, decided)
    if moved is None:
        said = f"No open event is put aside as {decided.parked_id}: `sitelog parked show` says what became of it"
    else:
        said = f"{decided.parked_id} is discarded. {line(moved)}"
    if as_json:
        write_json(None if moved is None else plain(moved))
    else:
        say(said)
    return EXIT_NO if moved is None else 0
