"""Faust as its documentation shows it: an agent that takes events in batches and writes the latest state."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import faust
import typer

from sitelog.projections._database import connect
from sitelog.streams.settings import Settings, load_settings
from tests.benchmarks.latest import POSITION_SQL, UPSERT_SQL, Latest, Reader

TOPIC = "customer-sites-events"
TAKE_SECONDS_MAX = 1.0


def build(settings: Settings, take: int) -> faust.App:
    """Faust's own transport and defaults; what is switched off costs it time or makes topics that nobody needs."""
    database = settings.database_config.primary
    app = faust.App(
        f"plain-{database.database}",
        broker=[f"kafka://{server}" for server in settings.kafka_config.bootstrap_servers],
        store="memory://",
        datadir=tempfile.gettempdir(),
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        autodiscover=False,
    )
    topic = app.topic(TOPIC, key_type=bytes, key_serializer="raw", value_type=bytes, value_serializer="raw")
    reader = Reader()

    @app.agent(topic)
    async def project(stream: Any) -> None:
        connection = await connect(database, application="plain Faust")
        events = 0
        async for values in stream.take(take, within=TAKE_SECONDS_MAX):
            latest = Latest()
            for value in values:
                latest.take(*reader.read(value))
            events += len(values)
            async with connection.transaction():
                await connection.execute(UPSERT_SQL, *latest.arrays())
                # An agent doesn't see offsets here: the number of events, so that its progress can be watched.
                await connection.execute(POSITION_SQL, 0, events)

    return app


def main(config: Annotated[Path, typer.Option()], take: Annotated[int, typer.Option()] = 1_000) -> None:
    app = build(load_settings(config, {}), take)
    faust.Worker(app, loglevel="WARN").execute_from_commandline()


if __name__ == "__main__":
    typer.run(main)
