"""Topics on a real Kafka: created as configured, left alone when there, and refused with numbers when otherwise."""

import asyncio
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from sitelog.streams._kafka import kafka_client_options
from sitelog.streams.errors import Halt, UnavailableError
from sitelog.streams.settings import AppendSettings, KafkaSettings, Settings, TopicSettings
from sitelog.streams.topics import EXIT_TOPICS, check_topics, create_topics
from tests.commands import sitelog
from tests.conftest import Services
from tests.foreign_topic import make_foreign_topic
from tests.rig import config_values, write_config

pytestmark = pytest.mark.services

With = Callable[..., Settings]


@pytest.fixture
def topic() -> str:
    return f"topic-{uuid.uuid4().hex}"


@pytest.fixture
async def with_topic(services: object, kafka: list[str], topic: str) -> With:
    """Settings that name one more topic, which no other test has."""

    def settings(partitions: int = 2, **values: object) -> Settings:
        base: Settings = services.settings("unused")
        # Without the fixed two: they are other tests', and may be deleted at any time.
        topics = {topic: TopicSettings(partitions=partitions, **({"replication_factor": 1} | values))}
        update = {"topics": topics, "bootstrap_servers": kafka}
        return base.model_copy(update={"kafka_config": base.kafka_config.model_copy(update=update)})

    return settings


async def described(settings: Settings, topic: str) -> tuple[int, dict[str, str]]:
    """The topic's number of partitions and its own settings, asked of the broker by another client."""
    admin = AIOKafkaAdminClient(**kafka_client_options(settings))
    await admin.start()
    try:
        [description] = await admin.describe_topics([topic])
        [response] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    finally:
        await admin.close()
    return len(description["partitions"]), {entry[0]: entry[1] for entry in response.resources[0][4]}


async def test_a_topic_is_created_as_the_configuration_says(with_topic: With, topic: str) -> None:
    settings = with_topic(3, retention_ms=7_200_000, compression_type="zstd")

    assert await create_topics(settings) == ([topic], [])

    partitions, values = await described(settings, topic)
    assert partitions == 3
    assert (values["retention.ms"], values["compression.type"]) == ("7200000", "zstd")
    assert (values["cleanup.policy"], values["min.insync.replicas"]) == ("delete", "1")
    await check_topics(settings)


async def test_a_created_topic_has_its_broker_s_clock_and_no_producer_s(with_topic: With, topic: str) -> None:
    settings = with_topic()
    await create_topics(settings)
    before = time.time()

    async with AIOKafkaProducer(**kafka_client_options(settings)) as producer:
        sent = await producer.send_and_wait(topic, b"from a backfill", timestamp_ms=1, partition=0)
    options = kafka_client_options(settings)
    async with AIOKafkaConsumer(topic, auto_offset_reset="earliest", **options) as consumer:
        record = await asyncio.wait_for(consumer.getone(), 30)

    assert (record.offset, before <= record.timestamp / 1000 + 1 <= time.time() + 1) == (sent.offset, True)


async def test_a_created_topic_takes_an_event_of_the_largest_size_at_once(with_topic: With, topic: str) -> None:
    settings = with_topic()
    await create_topics(settings)
    largest = bytes(settings.append.event_bytes_max)

    producer = AIOKafkaProducer(**kafka_client_options(settings), max_request_size=2 * len(largest))
    async with producer:
        assert (await producer.send_and_wait(topic, largest, key=b"x" * 100)).offset == 0


async def test_creating_again_changes_nothing(with_topic: With, topic: str) -> None:
    await create_topics(with_topic(retention_ms=7_200_000))

    created, less = await create_topics(with_topic(retention_ms=9_000_000))
    assert created == []
    assert less[0].startswith(f"topic {topic}: expected retention.ms of at least 9000000, ")

    assert (await described(with_topic(), topic))[1]["retention.ms"] == "7200000"


async def test_two_that_create_at_once_both_succeed(with_topic: With) -> None:
    settings = with_topic()

    await asyncio.gather(create_topics(settings), create_topics(settings), create_topics(settings))

    await check_topics(settings)


@pytest.mark.parametrize("act", [create_topics, check_topics])
async def test_another_number_of_partitions_is_refused_with_both(
    with_topic: With, topic: str, act: Callable[..., object]
) -> None:
    await create_topics(with_topic(2))

    with pytest.raises(Halt, match=f"topic {topic}: expected 3 partitions, .* found 2. Set partitions to 2") as halt:
        await act(with_topic(3))

    assert halt.value.exit_code == EXIT_TOPICS
    assert (await described(with_topic(), topic))[0] == 2


async def test_a_missing_topic_is_named_with_the_command_that_creates_it(with_topic: With, topic: str) -> None:
    with pytest.raises(Halt, match=f"got none called {topic}: `sitelog topics create`") as halt:
        await check_topics(with_topic())

    assert halt.value.exit_code == EXIT_TOPICS
    # Looking must not have created it.
    with pytest.raises(Halt):
        await check_topics(with_topic())


@pytest.mark.parametrize("act", [create_topics, check_topics])
@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
async def test_a_compacted_topic_is_refused_as_it_can_be_no_log(
    with_topic: With, topic: str, policy: str, act: Callable[..., object]
) -> None:
    await make_foreign_topic(with_topic(), topic, 2, {"cleanup.policy": policy})

    with pytest.raises(Halt, match=f"topic {topic}: expected cleanup.policy delete, found {policy}: ") as halt:
        await act(with_topic())

    assert halt.value.exit_code == EXIT_TOPICS


async def test_all_that_a_topic_has_less_of_than_configured_is_told_with_the_command(
    with_topic: With, topic: str
) -> None:
    settings = with_topic(replication_factor=3)
    await make_foreign_topic(settings, topic, 2, {"retention.ms": "3600000", "max.message.bytes": "1048588"})

    with pytest.raises(Halt) as halt:
        await check_topics(settings)

    assert halt.value.exit_code == EXIT_TOPICS
    assert str(halt.value).splitlines() == [
        f"topic {topic}: expected retention.ms of at least 604800000, as the configuration says, found 3600000",
        (
            f"topic {topic}: expected max.message.bytes of at least 1114112 (append.event_bytes_max, 1048576, and "
            "65536 for headers and batch), as the configuration says, found 1048588"
        ),
        f"topic {topic}: expected min.insync.replicas of at least 2, as the configuration says, found 1",
        (
            f"Run kafka-configs.sh --bootstrap-server SERVER --alter --entity-type topics --entity-name {topic} "
            "--add-config retention.ms=604800000,max.message.bytes=1114112,min.insync.replicas=2, or lower what is "
            "configured"
        ),
    ]


async def test_a_topic_as_kafka_makes_it_takes_the_largest_event_that_the_settings_page_names(
    with_topic: With, topic: str
) -> None:
    await make_foreign_topic(with_topic(), topic, 2, {"max.message.bytes": "1048588"})
    smaller = {"append": AppendSettings(event_bytes_max=983_040)}

    assert await check_topics(with_topic().model_copy(update=smaller)) == []


async def test_what_a_topic_has_more_of_than_configured_is_fine(with_topic: With, topic: str) -> None:
    await make_foreign_topic(with_topic(), topic, 2, {"retention.ms": "-1", "max.message.bytes": "2000000"})

    assert await check_topics(with_topic()) == []


async def test_a_topic_that_is_kept_for_ever_by_configuration_alone_is_told(with_topic: With) -> None:
    await create_topics(with_topic())

    with pytest.raises(Halt, match="of at least -1, as the configuration says, found 604800000"):
        await check_topics(with_topic(retention_ms=-1))


async def test_creating_tells_what_an_existing_topic_has_less_of_and_goes_on(
    services: Services, kafka: list[str], with_topic: With, topic: str
) -> None:
    await make_foreign_topic(with_topic(), topic, 2, {"retention.ms": "3600000", "max.message.bytes": "2000000"})
    values = config_values(services, "unused")
    values["kafka_config"]["bootstrap_servers"] = kafka
    values["kafka_config"]["topics"][topic] = {"partitions": 2, "replication_factor": 1}
    config: Path = write_config(services, values)

    ran = await sitelog(config, "topics", "create")

    assert ran.code == 0
    assert f"{topic}: was there already, 2 partitions" in ran.out
    assert ran.err.startswith(f"topic {topic}: expected retention.ms of at least 604800000, ")
    assert f"--entity-name {topic} --add-config retention.ms=604800000, or lower" in ran.err
    assert (await sitelog(config, "topics", "check")).code == EXIT_TOPICS


async def test_more_copies_than_brokers_is_refused_with_what_to_do(with_topic: With) -> None:
    with pytest.raises(Halt, match="replication_factor 3 needs as many brokers: start more, or lower it"):
        await create_topics(with_topic(replication_factor=3))


async def test_a_kafka_that_isnt_there_is_named_by_address(with_topic: With) -> None:
    settings = with_topic()
    nowhere: KafkaSettings = settings.kafka_config.model_copy(
        update={"bootstrap_servers": ["127.0.0.1:1", "kafka.invalid:9092"]}
    )

    with pytest.raises(UnavailableError) as unavailable:
        await check_topics(settings.model_copy(update={"kafka_config": nowhere}))

    message = str(unavailable.value)
    assert "127.0.0.1:1: connection refused" in message
    assert "kafka.invalid:9092: " in message
    assert "Check kafka_config.bootstrap_servers" in message
