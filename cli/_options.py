"""The options that most commands take: which configuration, and JSON for scripts."""

import os
import stat
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer

from sitelog.cli._stack_options import DEFAULT_DIR, DIR_VARIABLE
from sitelog.streams.errors import ConfigError
from sitelog.streams.settings import ProducerSettings, Settings, load_producer_settings, load_settings

CONFIG_VARIABLE: Final = "SITELOG_CONFIG"
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar=CONFIG_VARIABLE,
        show_envvar=True,
        help="The configuration; otherwise sitelog.yaml in $SITELOG_DIR, or without it in ./.sitelog, else "
        "./sitelog.yaml.",
    ),
]
# Postgres's integers: it is never asked for a larger one.
INTEGER_MAX: Final = 2**31 - 1
BIGINT_MAX: Final = 2**63 - 1

JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON, for scripts.")]


def refuse_before_subcommand(context: typer.Context) -> None:
    """Refuse a group's option before a subcommand, which has its own and would never see it; raises ConfigError.

    What a variable says reaches both.
    """
    for option in context.command.params if context.invoked_subcommand is not None else ():
        source = context.get_parameter_source(str(option.name))
        if source is not None and source.name == "COMMANDLINE":
            raise ConfigError(
                f"expected {option.opts[0]} after {context.invoked_subcommand}, found it before: it would be ignored"
            )


def find_config(config: Path | None) -> Path:
    """Return the configuration that was named, or the first usual place that has one; raises ConfigError."""
    found = config_if_any(config)
    if found is not None:
        return found
    first, *others = (str(place) if place.is_absolute() else f"./{place}" for place in _usual_places())
    places = f"{first}, where {DIR_VARIABLE} points" if not others else " or ".join((first, *others))
    raise ConfigError(
        f"expected a configuration in --config, {CONFIG_VARIABLE}, {places}, found none: `sitelog up` writes {first}"
    )


def config_if_any(config: Path | None) -> Path | None:
    """Return the configuration that was named, or the first usual place that has one, None for none."""
    return config or next((place for place in _usual_places() if _is_file(place)), None)


def _is_file(place: Path) -> bool:
    try:
        return stat.S_ISREG(place.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # mostly another user's folder
        raise ConfigError(f"{place}: {error.strerror}. Name a configuration in --config or SITELOG_CONFIG") from error


def _usual_places() -> tuple[Path, ...]:
    named = os.environ.get(DIR_VARIABLE)
    if named:
        # Any other may be another stack's: what `status` shows is what `position set` acts on.
        return (Path(named) / "sitelog.yaml",)
    return DEFAULT_DIR / "sitelog.yaml", Path("sitelog.yaml")


def settings_from(config: Path | None) -> Settings:
    """Load the configuration with this process's environment; raises ConfigError with every problem."""
    return load_settings(find_config(config), os.environ)


def producer_settings_from(config: Path | None) -> ProducerSettings:
    """Load what producers need of it; raises ConfigError as well."""
    return load_producer_settings(find_config(config), os.environ)


def write_json(value: object) -> None:
    """Write `value` to stdout as JSON, as a person may read it too; times in ISO 8601."""
    typer.echo(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode())


def write_json_line(value: object) -> None:
    """Write `value` to stdout as one line of JSON, for what comes one by one."""
    typer.echo(orjson.dumps(value, default=str, option=orjson.OPT_UTC_Z).decode())
