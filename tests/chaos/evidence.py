"""What a run has left behind, read without a line of the product: by aiokafka, asyncpg and fastavro."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import asyncpg
import fastavro
from aiokafka import AIOKafkaConsumer, TopicPartition
from fastavro.schema import fingerprint, to_parsing_canonical_form

from tests.oracle import JSON_COLUMNS, TABLES

Place = tuple[str, int]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SCHEMAS = Path(__file__).parents[2] / "schemas" / "avro"
SINGLE_OBJECT = b"\xc3\x01"
HEADER_BYTES = 10
READ_SECONDS_MAX = 60.0

LOG = """
SELECT p.topic, p.partition, l.log_seq, l.kafka_offset, l.event_id::text, l.event_type, l.entity_id, l.event_time,
    l.append_time, l.payload, l.schema_fingerprint
FROM sitelog.event_log AS l
JOIN sitelog.log_partition AS p USING (log_partition)
ORDER BY l.log_partition, l.log_seq
"""
PARKED = """
SELECT p.topic, p.partition, k.kafka_offset, k.entity_id, k.status, k.reason
FROM sitelog.parked_event AS k
JOIN sitelog.log_partition AS p USING (log_partition)
WHERE k.closed_at IS NULL
"""
CONFLICTS = """
SELECT p.topic, p.partition, c.log_seq, c.entity_id, c.event_id::text, c.projection, c.field, c.reason, c.resolution
FROM sitelog.conflict AS c
JOIN sitelog.log_partition AS p USING (log_partition)
"""
POSITIONS = """
SELECT p.log_partition, p.topic, p.partition, o.log_seq
FROM sitelog.log_partition AS p
LEFT JOIN sitelog.consumer_position AS o ON o.log_partition = p.log_partition AND o.consumer = 'projector'
"""


class Fields(dict[str, Any]):
    """An Avro record whose fields are attributes, which is how the oracle reads events; a map is one, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass(frozen=True)
class Record:
    """A record of the topic."""

    place: Place
    offset: int
    append_time: datetime
    value: bytes


@dataclass(frozen=True)
class Logged:
    """A row of the log; `value` is its payload behind the header that belongs to its fingerprint."""

    place: Place
    log_seq: int
    offset: int
    event_id: str
    event_type: str
    entity_id: str
    event_time: datetime
    append_time: datetime
    value: bytes


@dataclass(frozen=True)
class Parked:
    """An event that is put aside still."""

    place: Place
    offset: int
    entity_id: str
    status: str
    reason: str


@dataclass(frozen=True, order=True)
class Conflict:
    """A field of an event that met another value than its producer knew of; `log_seq` is the event's."""

    place: Place
    log_seq: int
    entity_id: str
    event_id: str
    table: str
    field: str
    reason: str
    resolution: str


@dataclass(frozen=True)
class Evidence:
    """`records` by partition in the order of their offsets, `log` in its order, `tables` with places for partitions.

    `positions` are the log seqs up to which the projector says that it has written each partition.
    """

    records: Mapping[Place, Sequence[Record]]
    log: Sequence[Logged]
    positions: Mapping[Place, int]
    parked: Sequence[Parked]
    conflicts: Sequence[Conflict]
    tables: Mapping[str, Sequence[Mapping[str, Any]]]


@cache
def schemas() -> dict[bytes, tuple[str, str, dict[str, Any]]]:
    """Return event type, field of the entity's id and schema of every event, by the eight bytes of its fingerprint."""
    found = {}
    for path in sorted(SCHEMAS.glob("*.avsc")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        number = fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO")
        parsed: Any = fastavro.parse_schema(schema)
        found[bytes.fromhex(number)] = (path.name.partition("-")[0], schema["key"], parsed)
    return found


def decode(value: bytes) -> Any:
    """Return the event of a record's value, its fields as attributes."""
    assert value[:2] == SINGLE_OBJECT, f"expected Avro's single-object encoding, got {value[:2]!r}"
    event_type, key, schema = schemas()[value[2:HEADER_BYTES]]
    fields = _attributes(fastavro.schemaless_reader(BytesIO(value[HEADER_BYTES:]), schema, None))
    return Fields(fields, event_type=event_type, entity_id=fields[key])


def _attributes(value: Any) -> Any:
    if isinstance(value, dict):
        return Fields({name: _attributes(one) for name, one in value.items()})
    return [_attributes(one) for one in value] if isinstance(value, list) else value


async def gather(bootstrap_servers: list[str], topics: Mapping[str, int], connection: asyncpg.Connection) -> Evidence:
    """Read all that the database has, and so many partitions of each topic; nobody may write meanwhile."""
    positions = await connection.fetch(POSITIONS)
    places = {row["log_partition"]: (row["topic"], row["partition"]) for row in positions}
    return Evidence(
        records=await _read_topics(bootstrap_servers, topics),
        log=[
            Logged(
                (row["topic"], row["partition"]),
                row["log_seq"],
                row["kafka_offset"],
                row["event_id"],
                row["event_type"],
                row["entity_id"],
                row["event_time"],
                row["append_time"],
                SINGLE_OBJECT + row["schema_fingerprint"].to_bytes(8, "little", signed=True) + row["payload"],
            )
            for row in await connection.fetch(LOG)
        ],
        positions={places[row["log_partition"]]: row["log_seq"] or 0 for row in positions},
        parked=[Parked((row[0], row[1]), *row[2:]) for row in map(tuple, await connection.fetch(PARKED))],
        conflicts=[Conflict((row[0], row[1]), *row[2:]) for row in map(tuple, await connection.fetch(CONFLICTS))],
        tables={table: await _read_table(connection, table, places) for table in TABLES},
    )


async def read_ends(bootstrap_servers: list[str], topics: Mapping[str, int]) -> dict[Place, int]:
    """Return the offset after the last record of so many partitions of each topic, acknowledged or not."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, enable_auto_commit=False)
    async with asyncio.timeout(READ_SECONDS_MAX), consumer:
        ends = await consumer.end_offsets(_partitions(topics))
    return {(partition.topic, partition.partition): end for partition, end in ends.items()}


async def _read_table(connection: asyncpg.Connection, table: str, places: Mapping[int, Place]) -> list[dict[str, Any]]:
    """Read a view, and what its table alone has: field versions."""
    # `table` and its key are literals of the oracle's.
    rows = await connection.fetch(
        f"SELECT v.*, t.field_versions FROM public.{table} AS v "  # noqa: S608
        f"JOIN public.{table}_v1 AS t USING ({', '.join(TABLES[table])})"
    )
    return [
        {
            name: json.loads(value) if name in JSON_COLUMNS and value is not None else value
            for name, value in row.items()
        }
        | {"log_partition": places.get(row["log_partition"], row["log_partition"])}
        for row in rows
    ]


async def _read_topics(bootstrap_servers: list[str], topics: Mapping[str, int]) -> dict[Place, list[Record]]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, enable_auto_commit=False)
    records: dict[Place, list[Record]] = {}
    async with asyncio.timeout(READ_SECONDS_MAX), consumer:
        partitions = _partitions(topics)
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        for partition, end in (await consumer.end_offsets(partitions)).items():
            place = (partition.topic, partition.partition)
            records[place] = []
            while await consumer.position(partition) < end:
                for record in (await consumer.getmany(partition, timeout_ms=1_000)).get(partition, []):
                    append_time = EPOCH + timedelta(milliseconds=record.timestamp)
                    records[place].append(Record(place, record.offset, append_time, record.value))
    return records


def _partitions(topics: Mapping[str, int]) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for topic, count in topics.items() for number in range(count)]
