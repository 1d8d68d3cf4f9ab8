"""`sitelog db`: set the database up, and check that it is."""

import asyncio

import typer

from sitelog.cli._options import ConfigOption, settings_from
from sitelog.streams.settings import Settings

app = typer.Typer(no_args_is_help=True)


@app.callback()
def db() -> None:
    """Set the database up, or check that it is."""


@app.command()
def init(config: ConfigOption = None) -> None:
    """Create schema, read models, roles and grants where they are missing, as database_config.owner.

    Where workers can't start before a replay, it says which, and exits with 0 all the same.
    """
    from sitelog.projections._install import install  # noqa: PLC0415 - `sitelog --help` shouldn't wait for it

    settings = settings_from(config)
    due = asyncio.run(install(settings))
    found = "what this release needs" if due is None else f"this release's tables, but no worker starts: {due}"
    typer.echo(f"{_name(settings)} has {found}")


@app.command()
def check(config: ConfigOption = None) -> None:
    """Say whether the database has what this release's workers need, and what to do where it doesn't."""
    settings = settings_from(config)
    asyncio.run(_check(settings))
    typer.echo(f"{_name(settings)} has what this release needs")


async def _check(settings: Settings) -> None:
    from sitelog.projections import _install  # noqa: PLC0415
    from sitelog.projections._database import session  # noqa: PLC0415
    from sitelog.projections._log_partitions import check_partitions  # noqa: PLC0415
    from sitelog.projections._registry import load  # noqa: PLC0415

    async with session(settings.database_config.primary) as connection:
        await _install.check(connection, load())
        await check_partitions(connection, settings.kafka_config.topics)


def _name(settings: Settings) -> str:
    database = settings.database_config.primary
    return f"{database.database} on {database.host}:{database.port}"
