"""`sitelog status`: what of the embedded stack runs, answers and is ready."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta

import typer
from rich.table import Column, Table

from sitelog.cli._options import JsonOption, write_json
from sitelog.cli._run import EXIT_NO
from sitelog.cli._stack_options import DEFAULT_DIR, DirOption
from sitelog.cli._terminal import Terminal
from sitelog.deploy.status import ServiceStatus, status

app = typer.Typer(help="Show what of the stack runs, answers and is ready.")
_COLOURS = {"up": "green", "busy": "yellow", "dead": "red", "down": "dim"}


@app.command()
def show(folder: DirOption = DEFAULT_DIR, as_json: JsonOption = False) -> int:
    """Show each service's state, pid, port and uptime.

    Exits with 0 if everything is up, with 1 if anything isn't or there is no stack.
    """
    services = asyncio.run(status(folder))
    if as_json:
        write_json([asdict(service) for service in services or ()])
    elif services is None:
        typer.echo(f"There is no stack in {folder}: `sitelog up` makes one")
    else:
        Terminal().print(_table(services))
        for service in services:
            if service.detail:
                typer.echo(f"{service.name}: {service.detail}")
    return 0 if services and all(service.state == "up" for service in services) else EXIT_NO


def _table(services: Sequence[ServiceStatus]) -> Table:
    table = Table(*(Column(name, overflow="fold") for name in ("service", "state", "pid", "port", "uptime")))
    for service in services:
        up_for = "" if service.uptime_seconds is None else str(timedelta(seconds=int(service.uptime_seconds)))
        colour = _COLOURS[service.state]
        pid = "" if service.pid is None else str(service.pid)
        table.add_row(service.name, f"[{colour}]{service.state}[/]", pid, str(service.port), up_for)
    return table
