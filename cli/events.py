"""`sitelog events`: which events there are, and what one looks like."""

from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from sitelog.cli._options import JsonOption, refuse_before_subcommand, write_json, write_json_line
from sitelog.cli._terminal import Terminal
from sitelog.schemas import EventSchema, load, newest
from sitelog.streams._writer import fingerprint_of, header
from sitelog.streams.errors import ConfigError
from sitelog.streams.examples import example
from sitelog.streams.json_lines import line_of, nearest_event

app = typer.Typer(invoke_without_command=True)

NameArgument = Annotated[str, typer.Argument(metavar="EVENT", help="An event's name, such as site_created.")]


@app.callback()
def events(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the events, or show one."""
    refuse_before_subcommand(context)
    if context.invoked_subcommand is not None:
        return
    schemas = newest(load()).values()
    if as_json:
        write_json([_described(schema) for schema in schemas])
        return
    table = Table()
    table.add_column("event", overflow="fold")
    table.add_column("topic", overflow="fold")
    table.add_column("what happened")
    for schema in schemas:
        table.add_row(schema.event_type, schema.topic, schema.doc)
    Terminal().print(table)


@app.command()
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Print an event's Avro schema, the bytes that its value begins with, and an example line for `sitelog append`."""
    schema = newest(load()).get(name)
    if schema is None:
        raise ConfigError(f"expected an event's name, got {name}{nearest_event(name)}")
    line = _example(name)
    if as_json:
        write_json({**_described(schema), "schema": schema.schema, "example": line})
        return
    described = _described(schema)
    typer.echo(schema.text)
    typer.echo(f"topic {schema.topic}, key {schema.key}")
    typer.echo(f"value without a registry: {described['header']}, then the Avro body\n")
    write_json_line(line)


def _example(name: str) -> dict[str, Any]:
    """Return what a line needs. With an id, the second one that somebody makes of it would repeat the first."""
    line: dict[str, Any] = orjson.loads(line_of(example(name)))
    return {field: value for field, value in line.items() if field not in {"event_id", "event_timestamp"}}


def _described(schema: EventSchema) -> dict[str, Any]:
    return {
        "event": schema.event_type,
        "version": schema.version,
        "topic": schema.topic,
        "key": schema.key,
        "header": header(fingerprint_of(schema.schema)).hex(" "),
        "doc": schema.doc,
    }
