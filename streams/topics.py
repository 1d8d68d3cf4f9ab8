"""Creates the topics that the configuration names, and checks that they are as it says."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sized
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import InvalidReplicationFactorError, KafkaError, TopicAlreadyExistsError, for_code

from sitelog.streams._kafka import kafka_client_options, start_client
from sitelog.streams.errors import Halt, UnavailableError
from sitelog.streams.settings import Settings, TopicSettings

EXIT_TOPICS: Final = 79
"""The process's exit code when a topic is missing, or isn't what the configuration says."""

_REQUEST_SECONDS: Final = 15
"""For one request: creating a topic on a busy cluster of three takes a second."""
_VISIBLE_SECONDS: Final = 15
"""Until a created topic has a leader for each partition and every broker knows of it."""
_POLL_SECONDS: Final = 0.05
"""Between two looks at the metadata, which Kafka gives no way to wait for."""
_OVERHEAD_BYTES: Final = 65_536
"""Room for key, headers and batch around the largest event, so that the broker takes what append accepts."""
_IN_SYNC_MIN: Final = 2
"""Copies that must have an event before it is acknowledged, where there are three or more."""


async def create_topics(settings: Settings) -> list[str]:
    """Create the configured topics that are missing, and return their names once they can be used.

    Topics that exist are left as they are; running it again changes nothing. Raises Halt if one of them has
    another number of partitions or can't be created, UnavailableError and ConfigError as `start_client`.
    """
    wanted = settings.kafka_config.topics
    async with admin_client(settings) as admin:
        found = await _partitions(admin)
        _refuse_other_counts(wanted, found)
        missing = [name for name in wanted if name not in found]
        if missing:
            response = await admin.create_topics(
                [_new_topic(name, wanted[name], settings) for name in missing],
                timeout_ms=_REQUEST_SECONDS * 1_000,
            )
            for name, code, *reason in response.topic_errors:
                _refuse_failure(name, wanted[name], for_code(code), reason[0] if reason else None)
            await _wait_until_led(admin, {name: wanted[name] for name in missing})
    return missing


async def check_topics(settings: Settings) -> None:
    """Raise Halt if a configured topic is missing or has another number of partitions; change nothing.

    Raises UnavailableError and ConfigError as `start_client`.
    """
    async with admin_client(settings) as admin:
        await require_topics(admin, settings.kafka_config.topics)


async def require_topics(admin: AIOKafkaAdminClient, wanted: Mapping[str, TopicSettings]) -> None:
    """Raise Halt unless all these topics are there, with as many partitions."""
    found = await _partitions(admin)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise Halt(
            f"expected the topics {', '.join(wanted)}, got none called {', '.join(missing)}: "
            "`sitelog topics create` creates them",
            EXIT_TOPICS,
        )
    _refuse_other_counts(wanted, found)


@asynccontextmanager
async def admin_client(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Connect for a few requests; whatever Kafka fails at meanwhile becomes UnavailableError, see `start_client`."""
    admin = AIOKafkaAdminClient(request_timeout_ms=_REQUEST_SECONDS * 1_000, **kafka_client_options(settings))
    try:
        await start_client(admin, settings)
        yield admin
    except (KafkaError, OSError, TimeoutError) as error:
        servers = ", ".join(settings.kafka_config.bootstrap_servers)
        raise UnavailableError(
            f"Kafka at {servers} didn't answer as expected: {error or type(error).__name__}. Try again"
        ) from error
    finally:
        await admin.close()


async def _partitions(admin: AIOKafkaAdminClient) -> dict[str, list[Mapping[str, Any]]]:
    """Return every topic's partitions as the brokers describe them.

    Asks for all topics: asking by name lets a broker with auto.create.topics.enable create them on the spot.
    """
    return {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics()}


def _refuse_other_counts(wanted: Mapping[str, TopicSettings], found: Mapping[str, Sized]) -> None:
    for name, topic in wanted.items():
        if name in found and len(found[name]) != topic.partitions:
            raise Halt(
                f"topic {name}: expected {topic.partitions} partitions, as kafka_config.topics says, "
                f"found {len(found[name])}. Set partitions to {len(found[name])}: changing the topic instead would "
                "move entities to other partitions, and their events out of order",
                EXIT_TOPICS,
            )


def _refuse_failure(name: str, topic: TopicSettings, error: type[KafkaError], reason: str | None) -> None:
    """Raise Halt unless the topic was created, by us or just now by somebody else."""
    if error.errno in {0, TopicAlreadyExistsError.errno}:
        return
    advice = "Check the rights of kafka_config.sasl_username"
    if error is InvalidReplicationFactorError:
        advice = f"replication_factor {topic.replication_factor} needs as many brokers: start more, or lower it"
    raise Halt(
        f"topic {name}: expected to create it, got {error.__name__}: {reason or error.description}. {advice}",
        EXIT_TOPICS,
    )


def _new_topic(name: str, topic: TopicSettings, settings: Settings) -> NewTopic:
    largest = max(settings.append.event_bytes_max, settings.append.batch_bytes)
    return NewTopic(
        name,
        num_partitions=topic.partitions,
        replication_factor=topic.replication_factor,
        topic_configs={
            "cleanup.policy": "delete",
            "retention.ms": str(topic.retention_ms),
            "compression.type": topic.compression_type,
            "max.message.bytes": str(largest + _OVERHEAD_BYTES),
            "min.insync.replicas": str(_IN_SYNC_MIN if topic.replication_factor > _IN_SYNC_MIN else 1),
        },
    )


async def _wait_until_led(admin: AIOKafkaAdminClient, wanted: Mapping[str, TopicSettings]) -> None:
    """Return when each partition has a leader, so that the next client can use it at once."""
    async with asyncio.timeout(_VISIBLE_SECONDS):
        while True:
            found = await _partitions(admin)
            _refuse_other_counts(wanted, {name: parts for name, parts in found.items() if parts})
            if all(_is_led(found.get(name)) for name in wanted):
                return
            await asyncio.sleep(_POLL_SECONDS)


def _is_led(partitions: list[Mapping[str, Any]] | None) -> bool:
    return bool(partitions) and all(partition["leader"] >= 0 for partition in partitions or ())
