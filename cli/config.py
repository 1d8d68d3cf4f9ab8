"""`sitelog config`: says what is wrong with the configuration, or what it amounts to."""

import sys
from typing import Annotated

import typer
import yaml

from sitelog.cli._options import (
    ConfigOption,
    JsonOption,
    find_config,
    producer_settings_from,
    settings_from,
    write_json,
)
from sitelog.cli._run import EXIT_USAGE
from sitelog.projections._database import ssl_context
from sitelog.streams._kafka import kafka_client_options
from sitelog.streams.errors import ConfigError
from sitelog.streams.settings import ProducerSettings, Settings

app = typer.Typer(no_args_is_help=True, help="Check the configuration, or show it without its secrets.")


ProducerOption = Annotated[
    bool, typer.Option("--producer", help="Check only what producers need: they have no database.")
]


@app.command()
def check(config: ConfigOption = None, producer: ProducerOption = False, as_json: JsonOption = False) -> None:
    """Name every wrong line of the configuration and what was expected there; nothing is connected to.

    Exits with 2 if there is any.
    """
    problems: list[str] = []
    place = find_config(config)
    try:
        settings = producer_settings_from(place) if producer else settings_from(place)
        _read_certificates(settings)
    except ConfigError as error:
        if not as_json:
            raise
        problems = str(error).splitlines()
    if as_json:
        write_json({"file": str(place), "ok": not problems, "problems": problems})
        raise typer.Exit(EXIT_USAGE if problems else 0)
    typer.echo(f"{place}: ok ({_summary(settings)})")


@app.command()
def show(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show the configuration with every default and override in place, and secrets as asterisks."""
    # pydantic writes a SecretStr as asterisks; nothing here unwraps one.
    values = settings_from(config).model_dump(mode="json", by_alias=True)
    if as_json:
        write_json(values)
    else:
        yaml.safe_dump(values, sys.stdout, sort_keys=False, allow_unicode=True)


def _read_certificates(settings: ProducerSettings) -> None:
    kafka_client_options(settings)
    if isinstance(settings, Settings):
        for database in (settings.database_config.primary, settings.database_config.read_replica):
            if database is not None:
                ssl_context(database)


def _summary(settings: ProducerSettings) -> str:
    kafka = settings.kafka_config
    topics = ", ".join(f"{name} ({topic.partitions} partitions)" for name, topic in kafka.topics.items())
    parts = [f"Kafka {', '.join(kafka.bootstrap_servers)} by {kafka.security_protocol}", f"topics {topics}"]
    if isinstance(settings, Settings):
        primary = settings.database_config.primary
        parts.append(f"Postgres {primary.host}:{primary.port}/{primary.database} with ssl_mode {primary.ssl_mode}")
    return "; ".join(parts)
