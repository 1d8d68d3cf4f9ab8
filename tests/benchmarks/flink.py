"""Flink SQL in a local cluster of one process: the topic of rows into Postgres, by upsert."""

from collections.abc import Callable
from typing import Final

import yaml

from sitelog.deploy._maven import Bundle
from sitelog.deploy._state import write_private
from tests.benchmarks.latest import COLUMNS
from tests.benchmarks.peer import JVM, Launch, Peer, fetch_bundle, java, password
from tests.benchmarks.rows import ROWS_TOPIC
from tests.benchmarks.services import Database

VERSION: Final = "2.0.0"
# As many as there are cores: one converts records while the other waits for Postgres.
PARALLELISM: Final = 2
RECORDS_MAX: Final = 5_000
_FLUSH_SECONDS: Final = 1
# Kafka's offsets are committed with each: so much is done again after a crash.
_CHECKPOINT_SECONDS: Final = 5
# What the distribution's own configuration opens on Java 17.
_OPENED: Final = (
    "java.lang",
    "java.lang.reflect",
    "java.io",
    "java.net",
    "java.nio",
    "java.text",
    "java.time",
    "java.util",
    "java.util.concurrent",
    "java.util.concurrent.atomic",
    "java.util.concurrent.locks",
    "sun.nio.ch",
)
BUNDLE: Final = Bundle(
    title=f"Flink {VERSION}", size="136 MB", pom=JVM / "flink.pom.xml", proof="flink-sql-client-*.jar"
)
_FLINK_TYPES: Final = {"text": "STRING", "double precision": "DOUBLE", "bigint": "BIGINT"}


def prepare(say: Callable[[str], None]) -> None:
    """Fetch Flink and its connectors. Raises UnavailableError."""
    fetch_bundle(BUNDLE, say)


def launch(database: Database) -> Launch:
    """Write configuration and script beside the database's configuration; the SQL client runs them in itself."""
    folder = database.config.with_suffix(".flink")
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(_configuration()), encoding="utf-8")
    script = folder / "script.sql"
    write_private(script, sql(database))
    opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED]
    main = ("org.apache.flink.table.client.SqlClient", "embedded", "-f", str(script))
    return Launch(java(BUNDLE, *opened, *main), {"FLINK_CONF_DIR": str(folder)})


def _configuration() -> dict[str, str | int | bool]:
    return {
        "execution.target": "local",
        "parallelism.default": PARALLELISM,
        "execution.checkpointing.interval": f"{_CHECKPOINT_SECONDS} s",
        # The client stays for as long as the job does, which is for ever.
        "table.dml-sync": True,
    }


def sql(database: Database) -> str:
    """Return the whole job. A primary key makes the sink upsert."""
    kafka, primary = database.settings.kafka_config, database.settings.database_config.primary
    columns = ",\n    ".join(f"{name} {_FLINK_TYPES[kind]}" for name, kind in COLUMNS.items())
    source = {
        "connector": "kafka",
        "topic": ROWS_TOPIC,
        "properties.bootstrap.servers": ",".join(kafka.bootstrap_servers),
        "properties.group.id": database.name,
        "scan.startup.mode": "earliest-offset",
        "format": "json",
    }
    sink = {
        "connector": "jdbc",
        # The driver then sends a batch's rows as few statements of many: the sink keeps one row a key.
        "url": f"jdbc:postgresql://{primary.host}:{primary.port}/{primary.database}?reWriteBatchedInserts=true",
        "username": primary.username,
        "password": password(database),
        "table-name": "latest",
        "sink.buffer-flush.max-rows": str(RECORDS_MAX),
        "sink.buffer-flush.interval": f"{_FLUSH_SECONDS}s",
    }
    return f"""
CREATE TABLE changes (
    {columns}
) WITH ({_options(source)});

CREATE TABLE latest (
    {columns},
    PRIMARY KEY (site_id) NOT ENFORCED
) WITH ({_options(sink)});

INSERT INTO latest SELECT * FROM changes;
"""  # noqa: S608 - literals, and this benchmark's own settings


def _options(options: dict[str, str]) -> str:
    return ", ".join(f"'{name}' = '{value}'" for name, value in options.items())


FLINK: Final = Peer(VERSION, ROWS_TOPIC, prepare, launch)
