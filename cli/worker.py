"""`sitelog worker`: run a consumer until it is told to stop."""

import asyncio
from typing import Annotated, Literal

import typer

from sitelog.cli._options import ConfigOption, settings_from

app = typer.Typer(no_args_is_help=True)

FormOption = Annotated[Literal["json", "text"], typer.Option("--log-format", help="One JSON object a line, or text.")]
LevelOption = Annotated[
    Literal["debug", "info", "warning", "error"], typer.Option("--log-level", help="Least severity to log.")
]


@app.callback()
def worker() -> None:
    """Run a consumer until it is told to stop; SIGTERM ends it cleanly."""


@app.command()
def projector(config: ConfigOption = None, log_format: FormOption = "json", log_level: LevelOption = "info") -> None:
    """Put the topics' events into the log and the read models."""
    from sitelog.agents import projector as consumer  # noqa: PLC0415 - Faust takes half a second to import
    from sitelog.agents._logging import configure  # noqa: PLC0415
    from sitelog.projections._registry import load, plan  # noqa: PLC0415
    from sitelog.streams._tracing import telemetry  # noqa: PLC0415

    configure(log_format, log_level)
    settings = settings_from(config)
    with telemetry(settings, f"sitelog-{consumer.CONSUMER}", settings.worker.instance_id) as sending:
        purpose = asyncio.run(consumer.preflight(settings, plan(load())))
        consumer.build(settings, purpose, sending).execute_from_commandline()
