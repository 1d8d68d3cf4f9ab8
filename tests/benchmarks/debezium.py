"""Debezium's JDBC sink in Kafka Connect, standalone: one process, each site's latest row by upsert."""

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import orjson

from sitelog.deploy._maven import Bundle
from sitelog.deploy._state import write_private
from tests.benchmarks.latest import COLUMNS
from tests.benchmarks.peer import JVM, Launch, Peer, bundle_folder, fetch_bundle, java, password
from tests.benchmarks.rows import ROWS_TOPIC
from tests.benchmarks.services import Database

VERSION: Final = "3.6.0.Final"
# As many as there are cores: one converts records while the other waits for Postgres.
TASKS: Final = 2
# Records a poll and a transaction, as many as the loop takes; Kafka's own 500 makes ten times the transactions.
RECORDS_MAX: Final = 5_000
_PLUGINS: Final = "plugins"
_CONNECT_TYPES: Final = {"text": "string", "double precision": "double", "bigint": "int64"}


def _unpack(folder: Path) -> None:
    """Put the archive's jars where Connect looks for plugins, and remove the archive."""
    plugin = folder / _PLUGINS / "debezium"
    plugin.mkdir(parents=True)
    for archive in folder.glob("*.tar.gz"):
        with tarfile.open(archive) as packed:
            for member in packed:
                content = packed.extractfile(member)
                if content is not None and member.name.endswith(".jar"):
                    (plugin / Path(member.name).name).write_bytes(content.read())
        archive.unlink()


BUNDLE: Final = Bundle(
    title=f"Debezium {VERSION}",
    size="96 MB",
    pom=JVM / "debezium.pom.xml",
    proof="debezium-connector-jdbc-*-plugin.tar.gz",
    finish=_unpack,
)


def prepare(say: Callable[[str], None]) -> None:
    """Fetch Kafka Connect and the plugin. Raises UnavailableError."""
    fetch_bundle(BUNDLE, say)


def launch(database: Database) -> Launch:
    """Write the worker's and the connector's properties beside the database's configuration."""
    worker = database.config.with_suffix(".worker.properties")
    connector = database.config.with_suffix(".connector.properties")
    write_private(worker, _properties(_worker(database)))
    write_private(connector, _properties(_connector(database)))
    main = "org.apache.kafka.connect.cli.ConnectStandalone"
    return Launch(java(BUNDLE, main, str(worker), str(connector)))


def _worker(database: Database) -> dict[str, str]:
    return {
        "bootstrap.servers": ",".join(database.settings.kafka_config.bootstrap_servers),
        # Otherwise each start looks through every class of every jar.
        "plugin.discovery": "service_load",
        "plugin.path": str(bundle_folder(BUNDLE) / _PLUGINS),
        "listeners": "http://127.0.0.1:0",
        "offset.storage.file.filename": str(database.config.with_suffix(".offsets")),
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        # Here, so that no record needs to bring it along (KIP-1054).
        "value.converter.schema.content": row_schema(),
    }


def _connector(database: Database) -> dict[str, str]:
    primary = database.settings.database_config.primary
    return {
        "name": database.name,
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
        "tasks.max": str(TASKS),
        "topics": ROWS_TOPIC,
        "connection.url": f"jdbc:postgresql://{primary.host}:{primary.port}/{primary.database}",
        "connection.username": primary.username,
        "connection.password": password(database),
        "insert.mode": "upsert",
        "primary.key.mode": "record_value",
        "primary.key.fields": "site_id",
        "collection.name.format": "public.latest",
        "schema.evolution": "none",
        "batch.size": str(RECORDS_MAX),
        "consumer.override.max.poll.records": str(RECORDS_MAX),
        # The two that its documentation has for speed: a row once a batch, and a batch as one statement.
        "use.reduction.buffer": "true",
        "dialect.postgres.unnest.insert.enabled": "true",
    }


def row_schema() -> str:
    """Return Connect's own description of the topic's rows, in JSON."""
    fields = [
        {"field": name, "type": _CONNECT_TYPES[kind], "optional": name != "site_id"} for name, kind in COLUMNS.items()
    ]
    return orjson.dumps({"type": "struct", "fields": fields, "optional": False}).decode()


def _properties(values: dict[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in values.items())


DEBEZIUM: Final = Peer(VERSION, ROWS_TOPIC, prepare, launch)
