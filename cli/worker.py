"""`sitelog worker`: run a consumer until it is told to stop."""

import asyncio
import gc
from importlib import import_module
from threading import Thread
from typing import Annotated, Literal

import typer

from sitelog.cli._options import ConfigOption, settings_from
from sitelog.cli._terminated import end_at_once

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
    end_at_once(at_once=True)  # until the worker has a handler of its own
    gc.disable()  # SitelogWorker enables it: nearly all that is made until then stays, looking for the rest takes 0.1 s
    from sitelog.agents._logging import configure  # noqa: PLC0415 - what follows takes a second to import
    from sitelog.agents._preflight import preflight  # noqa: PLC0415
    from sitelog.projections._read_models import PROJECTOR  # noqa: PLC0415
    from sitelog.projections._registry import load, plan  # noqa: PLC0415
    from sitelog.streams._tracing import telemetry  # noqa: PLC0415

    configure(log_format, log_level)
    settings = settings_from(config)
    with telemetry(settings, f"sitelog-{PROJECTOR}", settings.worker.instance_id) as sending:
        # Faust takes half a second to import: time in which servers can answer.
        importing = Thread(target=import_module, args=("sitelog.agents.projector",))
        importing.start()
        planned = plan(load())
        purpose = asyncio.run(preflight(settings, PROJECTOR, planned))
        importing.join()
        from sitelog.agents import projector as consumer  # noqa: PLC0415

        consumer.build(settings, planned, purpose, sending).execute_from_commandline()
