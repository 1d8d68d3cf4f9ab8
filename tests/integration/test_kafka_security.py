"""The guide's SASL_SSL with PLAIN against a real broker: let in, or told the real reason."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from pydantic import SecretStr

from sitelog.deploy._state import new_state, write_state
from sitelog.streams._kafka import faust_credentials, kafka_client_options
from sitelog.streams.errors import ConfigError, UnavailableError
from sitelog.streams.settings import TopicSettings
from sitelog.streams.topics import check_topics, create_topics
from tests.certificates import Authority
from tests.conftest import watched_folder
from tests.foreign_topic import make_foreign_topic
from tests.secure_kafka import SecureKafka, start_secure_kafka

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
async def secure() -> AsyncIterator[SecureKafka]:
    with watched_folder() as folder:
        state = new_state(brokers=1)
        write_state(folder, state)
        yield await start_secure_kafka(folder, state)


async def test_topics_are_created_and_events_travel_over_tls_with_a_password(secure: SecureKafka) -> None:
    settings = secure.settings_with()
    await create_topics(settings)
    await check_topics(settings)
    options = kafka_client_options(settings)

    async with AIOKafkaProducer(**options) as producer:
        await producer.send_and_wait("territory-events", b"sent over TLS", partition=0)
    async with AIOKafkaConsumer("territory-events", **options, auto_offset_reset="earliest") as consumer:
        assert (await consumer.getone()).value == b"sent over TLS"


async def test_a_user_that_may_not_see_a_topics_settings_is_let_go_on_and_told(
    secure: SecureKafka, caplog: pytest.LogCaptureFixture
) -> None:
    settings = secure.settings_with()
    topics = {"audit-events": TopicSettings(partitions=1, replication_factor=1)}
    await make_foreign_topic(settings, "audit-events", 1, {"cleanup.policy": "compact"})
    admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{secure.plain_port}"})
    may = (AclOperation.DESCRIBE, AclPermissionType.ALLOW)
    rule = AclBinding(ResourceType.TOPIC, "audit-events", ResourcePatternType.LITERAL, "User:service", "*", *may)
    await asyncio.wrap_future(admin.create_acls([rule])[rule])
    caplog.set_level("INFO", "sitelog.streams.topics")

    assert await check_topics(secure.settings_with(topics=topics)) == ["audit-events"]

    assert [record.getMessage() for record in caplog.records] == [
        "audit-events: settings aren't compared, as this user may not see them (DescribeConfigs)"
    ]


def test_faust_gets_in_with_the_same_options(secure: SecureKafka) -> None:
    for_faust = dict(credentials_to_aiokafka_auth(faust_credentials(secure.settings)))
    ours = kafka_client_options(secure.settings)

    assert for_faust.pop("ssl_context").check_hostname is ours["ssl_context"].check_hostname is True
    assert for_faust.items() <= ours.items()


async def test_a_wrong_password_is_called_that_and_not_shown(secure: SecureKafka) -> None:
    with pytest.raises(ConfigError) as refused:
        await check_topics(secure.settings_with(sasl_password=SecretStr("hunter2")))

    message = str(refused.value)
    assert message.startswith(f"Kafka at localhost:{secure.tls_port} refused service (PLAIN): ")
    assert "Authentication failed" in message
    assert "kafka_config.sasl_username, sasl_password" in message
    assert "hunter2" not in message


async def test_a_mechanism_that_the_broker_lacks_is_named(secure: SecureKafka) -> None:
    with pytest.raises(ConfigError, match=r"refused service \(SCRAM-SHA-512\): .*sasl_mechanism"):
        await check_topics(secure.settings_with(sasl_mechanism="SCRAM-SHA-512"))


async def test_a_certificate_of_an_unknown_authority_is_refused(secure: SecureKafka) -> None:
    with pytest.raises(ConfigError, match=r"isn't trusted: .*Check kafka_config\.ssl_cafile"):
        await check_topics(secure.settings_with(ssl_cafile=None))


async def test_a_certificate_of_a_foreign_authority_is_refused_even_if_that_has_the_same_name(
    secure: SecureKafka, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign.pem"
    foreign.write_bytes(Authority().pem)

    with pytest.raises(ConfigError, match=r"localhost:\d+ isn't trusted: .*Check kafka_config\.ssl_cafile"):
        await check_topics(secure.settings_with(ssl_cafile=str(foreign)))


async def test_an_expired_certificate_is_refused_and_called_that(secure: SecureKafka) -> None:
    with pytest.raises(ConfigError, match=rf"localhost:{secure.expired_port} isn't trusted: certificate has expired"):
        await check_topics(secure.settings_with(bootstrap_servers=[f"localhost:{secure.expired_port}"]))


async def test_a_certificate_of_another_host_is_refused(secure: SecureKafka) -> None:
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1.* isn't trusted: .*127\.0\.0\.1"):
        await check_topics(secure.settings_with(bootstrap_servers=[f"127.0.0.1:{secure.tls_port}"]))


async def test_tls_spoken_to_a_plain_port_ends_in_words_within_seconds(secure: SecureKafka) -> None:
    with pytest.raises((UnavailableError, ConfigError), match=rf"127\.0\.0\.1:{secure.plain_port}"):
        await check_topics(secure.settings_with(bootstrap_servers=[f"127.0.0.1:{secure.plain_port}"]))
