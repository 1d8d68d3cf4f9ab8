"""`sitelog lag`: how far each consumer is behind, in events and in seconds."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sitelog.cli._figures import age, number
from sitelog.cli._options import ConfigOption, JsonOption, settings_from, write_json, write_json_line
from sitelog.cli._run import EXIT_NO
from sitelog.cli._standings import look_at_lag
from sitelog.cli._terminal import Terminal, text
from sitelog.projections._lag import Lag, Total, totals
from sitelog.projections._look import looking
from sitelog.projections._read_models import PROJECTOR
from sitelog.streams._offsets import Offsets
from sitelog.streams.settings import Settings

app = typer.Typer(help="Show how far each consumer is behind, in events and in seconds.")


@dataclass(frozen=True, slots=True)
class Limits:
    """What is still acceptable, per consumer; None is anything."""

    events: int | None
    seconds: float | None

    @property
    def given(self) -> bool:
        """Whether there is any."""
        return self.events is not None or self.seconds is not None

    def exceeded(self, lags: Sequence[Lag]) -> bool:
        """Tell whether any consumer exceeds a limit, or has a problem."""
        return any(total.exceeds(self.events, self.seconds) for total in totals(lags))


@app.command()
def show(
    config: ConfigOption = None,
    max_events: Annotated[
        int | None, typer.Option(min=0, help="Exit with 1 if a consumer is behind by more events than this.")
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(min=0, help="Exit with 1 if a consumer is behind by more seconds than this.")
    ] = None,
    watch: Annotated[
        float | None, typer.Option(min=0.5, max=3_600, help="Look again every so many seconds until Ctrl-C.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Show each consumer's position in each partition beside the topic's end, and what lies between.

    Seconds are the age of the oldest event that isn't applied. Exits with 0, with 1 if a limit is exceeded or a
    worker can't go on by itself, and with 69 if Kafka or Postgres can't be reached.
    """
    settings = settings_from(config)
    return asyncio.run(_run(settings, Limits(max_events, max_seconds), watch, as_json=as_json))


async def _run(settings: Settings, limits: Limits, watch: float | None, *, as_json: bool) -> int:
    async with looking(settings, "lag") as connection, Offsets(settings) as offsets:

        async def look() -> list[Lag]:
            return await look_at_lag(connection, offsets, settings, [PROJECTOR])

        if watch is not None:
            return await _watch(look, limits, watch, as_json=as_json)
        lags = await look()
    if as_json:
        write_json(_plain(lags, limits))
    else:
        Terminal().print(tables(lags))
    return EXIT_NO if limits.exceeded(lags) else 0


async def _watch(look: Callable[[], Awaitable[list[Lag]]], limits: Limits, seconds: float, *, as_json: bool) -> int:
    """Look until a limit is exceeded; without one for ever, as somebody may wait for the end of a problem."""
    terminal = Terminal()
    # Where the screen is too low, it is the beginning that goes: totals and problems are at the end.
    live = Live(console=terminal, auto_refresh=False, vertical_overflow="visible")
    with live if terminal.is_terminal and not as_json else nullcontext():
        while True:
            lags = await look()
            if as_json:
                write_json_line(_plain(lags, limits))
            elif terminal.is_terminal:
                live.update(tables(lags), refresh=True)
            else:
                terminal.print(tables(lags))
            if limits.given and limits.exceeded(lags):
                return EXIT_NO
            await asyncio.sleep(seconds)


def _plain(lags: Sequence[Lag], limits: Limits) -> dict[str, object]:
    return {
        "ok": not limits.exceeded(lags),
        "totals": [asdict(total) for total in totals(lags)],
        "partitions": [asdict(one) for one in lags],
    }


def tables(lags: Sequence[Lag]) -> Group:
    """Return a table for each consumer, with its total in the last line, and every problem in words."""
    parts: list[Table | Text] = []
    for total in totals(lags):
        own = [one for one in lags if one.consumer == total.consumer]
        problems = [f"{one.topic}[{one.partition}]: {one.problem}" for one in own if one.problem is not None]
        parts += [_table(total, own), *(text(problem, style="red") for problem in problems)]
    return Group(*parts)


def _table(total: Total, lags: Sequence[Lag]) -> Table:
    grid = Table(
        title=text(total.consumer), title_justify="left", box=SIMPLE_HEAD, show_footer=True, padding=(0, 1, 0, 0)
    )
    grid.add_column("partition", "all", overflow="fold")
    grid.add_column("position", justify="right", overflow="fold")
    grid.add_column("end", justify="right", overflow="fold")
    grid.add_column("behind", number(total.events), justify="right", overflow="fold")
    grid.add_column("oldest", age(total.seconds), justify="right", overflow="fold")
    grid.add_column("parked", number(total.parked_entities), justify="right", overflow="fold")
    grid.add_column("owner", overflow="fold")
    for one in lags:
        grid.add_row(
            text(f"{one.topic}[{one.partition}]"),
            number(one.position),
            number(one.end),
            number(one.events),
            age(one.seconds),
            number(one.parked_entities),
            _owner(one),
        )
    return grid


def _owner(one: Lag) -> Text:
    if one.problem is not None:
        return text("see below", style="red")
    return text("nobody" if one.owner is None else one.owner)
