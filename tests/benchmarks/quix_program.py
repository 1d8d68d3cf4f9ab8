"""Quix Streams as its documentation shows it: stateful processing keeps each site's row, its own sink writes it.

Runs in an environment of its own (`.peers`), so mypy and the project's other programs never import it.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from quixstreams import Application, State
from quixstreams.models import Deserializer
from quixstreams.sinks.community.postgresql import PostgreSQLSink

from sitelog.streams.settings import Settings, load_settings
from tests.benchmarks.latest import Latest, Reader

TOPIC = "customer-sites-events"


class Change(Deserializer):  # type: ignore[misc]
    """Reads an event as the columns that it changes."""

    def __init__(self) -> None:
        super().__init__()
        self._reader = Reader()

    def __call__(self, value: bytes, *_: Any, **__: Any) -> dict[str, Any]:
        event_type, event = self._reader.read(value)
        latest = Latest()
        latest.take(event_type, event)
        return {name: value for name, value in latest.row(event["site_id"]).items() if value is not None}


def merge(change: dict[str, Any], state: State) -> dict[str, Any]:
    """Return the site's row after this change, and keep it: the sink writes whole rows, not single columns."""
    row = state.get("row") or {"version": 0}
    row = {**row, **change, "version": row["version"] + 1}
    state.set("row", row)
    return row


def sink(settings: Settings) -> PostgreSQLSink:
    database = settings.database_config.primary
    return PostgreSQLSink(
        host=database.host,
        port=database.port,
        dbname=database.database,
        user=database.username,
        password=database.password.get_secret_value() if database.password else "",
        table_name="latest",
        primary_key_columns="site_id",
        upsert_on_primary_key=True,
        # The table is there. Otherwise each batch alters it once for every column, whether there is one or not.
        schema_auto_update=False,
        include_metadata=False,
    )


def build(settings: Settings, folder: Path, commit_every: int) -> Application:
    """At least once, with changelog topics for its state, both as by default."""
    name = settings.database_config.primary.database
    app = Application(
        broker_address=",".join(settings.kafka_config.bootstrap_servers),
        consumer_group=f"quix-{name}",
        auto_offset_reset="earliest",
        state_dir=folder / f"{name}-state",
        # A checkpoint is what flushes the sink; 5 s alone would make each batch as large as the machine is fast.
        commit_every=commit_every,
        loglevel="WARNING",
    )
    topic = app.topic(TOPIC, value_deserializer=Change())
    app.dataframe(topic).apply(merge, stateful=True).sink(sink(settings))
    return app


def main(config: Annotated[Path, typer.Option()], commit_every: Annotated[int, typer.Option()] = 10_000) -> None:
    build(load_settings(config, {}), config.parent, commit_every).run()


if __name__ == "__main__":
    typer.run(main)
