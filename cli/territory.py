"""`sitelog territory`: everything about one territory."""

import asyncio
from typing import Annotated

import typer

from sitelog.cli._figures import counted
from sitelog.cli._options import ConfigOption, JsonOption, settings_from, write_json
from sitelog.cli._printable import say
from sitelog.cli._run import EXIT_NO
from sitelog.cli._story import NEWEST, NewestOption, as_plain, look_at, write_parts
from sitelog.cli._terminal import text
from sitelog.projections._look import looking
from sitelog.projections._look_entity import sites_of
from sitelog.streams.settings import Settings

app = typer.Typer(help="Tell everything about one territory.")


@app.command()
def show(
    territory_id: Annotated[str, typer.Argument(metavar="ID", help="The territory's id.")],
    config: ConfigOption = None,
    newest: NewestOption = NEWEST,
    as_json: JsonOption = False,
) -> int:
    """Tell what a territory is today, how many sites it has, what happened to it, and what stops it.

    Exits with 0, with 1 if nothing is known of it, and with 69 if Postgres can't be reached.
    """
    return asyncio.run(_tell(settings_from(config), territory_id, newest, as_json=as_json))


async def _tell(settings: Settings, territory_id: str, newest: int, *, as_json: bool) -> int:
    async with looking(settings, "territory") as connection:
        telling = await look_at(connection, "territory", territory_id, newest)
        sites = await sites_of(connection, territory_id)
    # Sites can name a territory that was never created.
    known = telling.story.known or sites > 0
    if as_json:
        write_json(as_plain(telling) | {"sites": sites})
    elif known:
        write_parts(telling, text("territory ", (territory_id, "bold cyan"), f", {counted(sites, 'site')} now"))
    else:
        say(f"Nothing is known of a territory {territory_id}")
    return 0 if known else EXIT_NO
