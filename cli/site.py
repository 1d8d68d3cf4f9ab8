"""`sitelog site`: everything about one site."""

import asyncio
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from sitelog.cli._figures import moment, parse_moment
from sitelog.cli._options import ConfigOption, JsonOption, settings_from, write_json
from sitelog.cli._printable import say
from sitelog.cli._run import EXIT_NO
from sitelog.cli._story import NEWEST, NewestOption, as_plain, look_at, write_parts
from sitelog.cli._terminal import text
from sitelog.projections._look import looking
from sitelog.projections._look_entity import Owner, owner_at
from sitelog.streams.settings import Settings

app = typer.Typer(help="Tell everything about one site.")


@app.command()
def show(
    site_id: Annotated[str, typer.Argument(metavar="ID", help="The site's id.")],
    config: ConfigOption = None,
    at: Annotated[
        datetime | None,
        typer.Option(
            parser=parse_moment, metavar="TIME", help="Only say which territory it belonged to then; ISO 8601."
        ),
    ] = None,
    newest: NewestOption = NEWEST,
    as_json: JsonOption = False,
) -> int:
    """Tell what a site is today, what happened to it and where each event came from, and what stops it.

    Exits with 0, with 1 if nothing is known of it (with --at: if no territory had it then), and with 69 if Postgres
    can't be reached.
    """
    settings = settings_from(config)
    if at is not None:
        return asyncio.run(_owner(settings, site_id, at, as_json=as_json))
    return asyncio.run(_tell(settings, site_id, newest, as_json=as_json))


async def _tell(settings: Settings, site_id: str, newest: int, *, as_json: bool) -> int:
    async with looking(settings, "site") as connection:
        telling = await look_at(connection, "site", site_id, newest)
    if as_json:
        write_json(as_plain(telling))
    elif telling.story.known:
        write_parts(telling, text("site ", (site_id, "bold cyan")))
    else:
        say(f"Nothing is known of a site {site_id}")
    return 0 if telling.story.known else EXIT_NO


async def _owner(settings: Settings, site_id: str, at: datetime, *, as_json: bool) -> int:
    async with looking(settings, "site") as connection:
        known = (await look_at(connection, "site", site_id, 1)).story.known
        owner = await owner_at(connection, site_id, at)
    if as_json:
        write_json({"id": site_id, "known": known, "at": at, "owner": None if owner is None else asdict(owner)})
    else:
        say(_answer(site_id, at, owner) if known else f"Nothing is known of a site {site_id}")
    return EXIT_NO if owner is None else 0


def _answer(site_id: str, at: datetime, owner: Owner | None) -> str:
    if owner is None:
        return f"{moment(at)}: {site_id} belonged to no territory"
    until = "now" if owner.valid_until is None else moment(owner.valid_until)
    why = ", ".join(part for part in (owner.reason, owner.approved_by and f"approved by {owner.approved_by}") if part)
    return (
        f"{moment(at)}: {site_id} belonged to {owner.territory_id}, from {moment(owner.valid_from)} until {until}"
        + (f" ({why})" if why else "")
    )
