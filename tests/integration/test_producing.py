"""docs/producing.md works as it stands, and clients that aren't ours can produce."""

import asyncio
import gc
import io
import json
import os
import re
import shutil
import sys
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import avro.io
import avro.schema
import pytest
import yaml
from aiokafka.partitioner import murmur2
from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient, topic_record_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from sitelog.deploy._configuration import configuration
from sitelog.schemas import load, newest
from sitelog.streams._event import Event
from sitelog.streams._writer import fingerprint_of, header
from sitelog.streams.append import Appender
from sitelog.streams.codec import Codec
from sitelog.streams.errors import ConfigError, UnavailableError
from sitelog.streams.events import EVENT_TYPES, SiteUpdated
from sitelog.streams.examples import example
from sitelog.streams.registry import SchemaRegistry
from sitelog.streams.settings import SchemaRegistrySettings, Settings
from sitelog.streams.topics import create_topics
from tests.reading import records_of
from tests.registry_server import RegistryServer, running_registry

pytestmark = pytest.mark.services

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/producing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
TOPICS = ("customer-sites-events", "territory-events")
SCHEMAS = newest(load())
BY_RECORD = {"subject.name.strategy": topic_record_subject_name_strategy}

# Its HTTP client leaves some to the garbage collector, even when it is closed.
confluent_leaves_sockets = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
async def kafka_settings(services: Any, kafka: list[str]) -> Settings:
    settings: Settings = services.settings("unused")
    assert settings.kafka_config.bootstrap_servers == kafka
    await create_topics(settings)
    return settings


@pytest.fixture
async def registry() -> AsyncIterator[RegistryServer]:
    async with running_registry() as server:
        yield server


@pytest.fixture
def prefix() -> str:
    return f"{uuid.uuid4().hex}-"


def with_registry(settings: Settings, url: str) -> Settings:
    kafka_config = settings.kafka_config.model_copy(update={"schema_registry": SchemaRegistrySettings(url=url)})
    return settings.model_copy(update={"kafka_config": kafka_config})


def confluent_producer(settings: Settings) -> Producer:
    servers = ",".join(settings.kafka_config.bootstrap_servers)
    return Producer({"bootstrap.servers": servers, "partitioner": "murmur2_random", "enable.idempotence": True})


async def decoded(settings: Settings, prefix: str, registry: RegistryServer | None = None) -> list[Event]:
    """Every event of both topics whose key begins so, as a worker would read it."""
    records = [record for topic in TOPICS for record in await records_of(settings, topic, prefix)]
    if registry is None:
        return [Codec().decode(record.value).event for record in records]
    async with SchemaRegistry(SchemaRegistrySettings(url=registry.url)) as client:
        codec = Codec(client)
        await codec.prepare([record.value for record in records])
        return [codec.decode(record.value).event for record in records]


def avro_package_s_bytes(event: Event) -> bytes:
    """The event as Apache Avro's own library writes it, with the header that the page's table has."""
    schema = avro.schema.parse(SCHEMAS[event.event_type].text)
    body = io.BytesIO()
    avro.io.DatumWriter(schema).write(plain(event.model_dump()), avro.io.BinaryEncoder(body))
    [listed] = re.findall(rf"\| {event.event_type} \| `(c3 01[0-9a-f ]+)` \|", PAGE)
    return bytes.fromhex(listed) + body.getvalue()


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, tuple) else value


def same(events: list[Event]) -> list[Event]:
    return sorted(events, key=lambda event: event.event_id)


def examples(prefix: str) -> list[Event]:
    return [example(name, **{event.key_field: f"{prefix}{name}"}) for name, event in EVENT_TYPES.items()]


def test_the_page_lists_every_event_s_header() -> None:
    listed = dict(re.findall(r"\| ([a-z_]+) \| `(c3 01[0-9a-f ]+)` \|", PAGE))
    assert listed == {name: header(fingerprint_of(schema.schema)).hex(" ") for name, schema in SCHEMAS.items()}


async def test_confluent_s_producer_with_apache_avro_is_read(kafka_settings: Settings, prefix: str) -> None:
    events = examples(prefix)
    producer = confluent_producer(kafka_settings)
    for event in events:
        producer.produce(event.topic, key=event.entity_id, value=avro_package_s_bytes(event))
    assert await asyncio.to_thread(producer.flush, 30) == 0
    assert same(await decoded(kafka_settings, prefix)) == same(events)


@confluent_leaves_sockets
async def test_confluent_s_serializer_with_a_registry_is_read(
    kafka_settings: Settings, prefix: str, registry: RegistryServer
) -> None:
    events = examples(prefix)
    producer = confluent_producer(kafka_settings)

    def produce() -> int:
        client = SchemaRegistryClient({"url": registry.url})
        for event in events:
            text = SCHEMAS[event.event_type].text
            serialize = AvroSerializer(client, text, conf={"subject.name.strategy": topic_record_subject_name_strategy})
            value = serialize(plain(event.model_dump()), SerializationContext(event.topic, MessageField.VALUE))
            producer.produce(event.topic, key=event.entity_id, value=value)
        return int(producer.flush(30))

    assert await asyncio.to_thread(produce) == 0
    gc.collect()
    assert "customer-sites-events-sitelog.events.SiteCreated" in registry.subjects
    assert same(await decoded(kafka_settings, prefix, registry)) == same(events)


@confluent_leaves_sockets
async def test_another_team_s_schema_in_the_registry_is_read(
    kafka_settings: Settings, prefix: str, registry: RegistryServer
) -> None:
    schema = json.loads(SCHEMAS["site_deleted"].text)
    schema["fields"].insert(2, {"name": "ticket", "type": {"type": "array", "items": "string"}})
    event = example("site_deleted", site_id=f"{prefix}a")
    producer = confluent_producer(kafka_settings)

    def produce() -> int:
        with SchemaRegistryClient({"url": registry.url}) as client:
            serialize = AvroSerializer(client, json.dumps(schema), conf=BY_RECORD)
            values = event.model_dump() | {"ticket": ["a"]}
            value = serialize(values, SerializationContext(event.topic, MessageField.VALUE))
        producer.produce(event.topic, key=event.entity_id, value=value)
        return int(producer.flush(30))

    assert await asyncio.to_thread(produce) == 0
    gc.collect()
    assert await decoded(kafka_settings, prefix, registry) == [event]


async def test_our_own_appender_uses_the_registry_that_is_configured(
    kafka_settings: Settings, prefix: str, registry: RegistryServer
) -> None:
    events = examples(prefix)
    async with Appender(with_registry(kafka_settings, registry.url)) as appender:
        assert await appender.append_many(events) == len(events)
    records = [record for topic in TOPICS for record in await records_of(kafka_settings, topic, prefix)]
    assert {record.value[0] for record in records} == {0}
    assert same(await decoded(kafka_settings, prefix, registry)) == same(events)


async def test_a_registry_that_is_away_or_refuses_us_is_said_when_the_appender_connects(
    kafka_settings: Settings, registry: RegistryServer
) -> None:
    with pytest.raises(UnavailableError, match=r"schema registry .*: expected an answer, got ConnectError"):
        async with Appender(with_registry(kafka_settings, "http://127.0.0.1:1")):
            pass
    with pytest.raises(ConfigError, match=r"schema registry .*: expected success, got 404 "):
        async with Appender(with_registry(kafka_settings, f"{registry.url}/nowhere")):
            pass


async def test_both_headers_may_be_mixed(kafka_settings: Settings, prefix: str, registry: RegistryServer) -> None:
    first, second = (example("site_deleted", site_id=f"{prefix}a", event_id=str(uuid.uuid4())) for _ in range(2))
    async with Appender(kafka_settings) as appender:
        await appender.append(first)
    async with Appender(with_registry(kafka_settings, registry.url)) as appender:
        await appender.append(second)
    assert await decoded(kafka_settings, prefix, registry) == [first, second]


async def test_librdkafka_told_so_and_our_producer_choose_the_same_partitions(
    kafka_settings: Settings, prefix: str
) -> None:
    keys = [f"{prefix}{text}" for text in ["", "a", "ab", "abc", "é", "日本", *map(str, range(100))]]
    events = [example("site_deleted", site_id=key) for key in keys]
    producer = confluent_producer(kafka_settings)
    for event in events:
        producer.produce(event.topic, key=event.entity_id, value=Codec().encode(event))
    assert await asyncio.to_thread(producer.flush, 30) == 0
    async with Appender(kafka_settings) as appender:
        await appender.append_many(events)
    partitions: dict[bytes, list[int]] = defaultdict(list)
    for record in await records_of(kafka_settings, "customer-sites-events", prefix):
        partitions[record.key].append(record.partition)
    assert len(partitions) == len(keys)
    count = kafka_settings.kafka_config.topics["customer-sites-events"].partitions
    assert {len(found) for found in partitions.values()} == {2}
    assert all(set(found) == {(murmur2(key) & 0x7FFFFFFF) % count} for key, found in partitions.items())
    # As many different keys meet every partition: it isn't that all of them are one.
    assert {partition for found in partitions.values() for partition in found} == set(range(count))


JAVA_S_OWN_TEST = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("key", JAVA_S_OWN_TEST)
def test_aiokafka_s_murmur2_is_the_java_client_s(key: bytes) -> None:
    assert murmur2(key) == JAVA_S_OWN_TEST[key] % 2**32


async def test_the_page_s_blocks_run_as_they_stand(
    services: Any, kafka_settings: Settings, registry: RegistryServer, tmp_path: Path
) -> None:
    """One after the other, in one folder, with what `source .sitelog/env` gives and the registry's address."""
    config = tmp_path / "sitelog.yaml"
    config.write_text(yaml.safe_dump(configuration(services.state, database="unused")))
    shutil.copytree(ROOT / "schemas/avro", tmp_path / "schemas/avro")
    before = {topic: len(await records_of(kafka_settings, topic, "")) for topic in TOPICS}
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SITELOG_CONFIG": str(config),
        "KAFKA_BOOTSTRAP_SERVERS": ",".join(kafka_settings.kafka_config.bootstrap_servers),
        "SCHEMA_REGISTRY_URL": registry.url,
    }
    printed = [await run(language, block, tmp_path, environ) for language, block in BLOCKS]
    assert [language for language, _ in BLOCKS] == ["python", "bash", "bash", "python", "python"]
    assert printed[0].splitlines()[1] == "1000"
    assert printed[1].startswith("3 events appended in ")
    assert printed[2].startswith("1 event would be appended in ")
    assert json.loads(printed[2].partition("\n")[2])["appended"] == 1

    appended = {topic: len(await records_of(kafka_settings, topic, "")) - before[topic] for topic in TOPICS}
    assert appended == {"customer-sites-events": 1_001 + 2 + 1 + 1, "territory-events": 1 + 1}
    story = await decoded(kafka_settings, "site-17", registry)
    last = story[-1]
    assert isinstance(last, SiteUpdated)
    assert last.new_values is not None
    assert last.new_values.parking_capacity == 400
    territory = await decoded(kafka_settings, "mid-atlantic", registry)
    assert [event.event_type for event in territory[-2:]] == ["territory_created", "territory_updated"]


async def run(language: str, block: str, folder: Path, environ: dict[str, str]) -> str:
    """Run a block in a process of its own, from the folder, and return what it printed."""
    command = [sys.executable, "-c", block] if language == "python" else ["bash", "-euo", "pipefail", "-c", block]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()
