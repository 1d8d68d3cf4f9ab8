"""Creates the topics that the configuration names, and checks that they are as it says."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sized
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidReplicationFactorError,
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from sitelog.streams._kafka import kafka_client_options, start_client
from sitelog.streams._worker_settings import OVERHEAD_BYTES
from sitelog.streams.errors import Halt, UnavailableError, reason_of
from sitelog.streams.settings import ProducerSettings, TopicSettings

EXIT_TOPICS: Final = 79
"""The process's exit code when a topic is missing, or isn't what the configuration says."""

_REQUEST_SECONDS: Final = 15
"""For one request: creating a topic on a busy cluster of three takes a second."""
_VISIBLE_SECONDS: Final = 15
"""Until a created topic has a leader for each partition and every broker knows of it."""
_POLL_SECONDS: Final = 0.05
"""Between two looks at the metadata, which Kafka gives no way to wait for."""
_IN_SYNC_MIN: Final = 2
"""Copies that must have an event before it is acknowledged, where there are three or more."""
_POLICY: Final = "cleanup.policy"
_SIZE: Final = "max.message.bytes"
_AT_LEAST: Final = ("retention.ms", _SIZE, "min.insync.replicas")
"""A topic's own settings that lose events, refuse them or keep them less safe where they are smaller."""
_UNSEEN: Final = {
    TopicAuthorizationFailedError.errno,
    ClusterAuthorizationFailedError.errno,
    UnknownTopicOrPartitionError.errno,
}
"""What a broker answers of a topic whose settings this user may not see, or that isn't there."""

log = logging.getLogger(__name__)


async def create_topics(settings: ProducerSettings) -> tuple[list[str], list[str]]:
    """Create the configured topics that are missing; return their names once they can be used, and what others lack.

    That is a line for each setting of a topic that was there which is less than configured, and for the command that
    mends it; none for one whose settings this user may not see.

    Topics that exist are left as they are; running it again changes nothing. Raises Halt if one of them has
    another number of partitions, is compacted or can't be created, UnavailableError and ConfigError as `start_client`.
    """
    wanted = settings.kafka_config.topics
    async with admin_client(settings) as admin:
        found = await _partitions(admin)
        _refuse_other_counts(wanted, found)
        values = await _own_settings(admin, [name for name in wanted if name in found])
        _refuse_compacted(values)
        missing = [name for name in wanted if name not in found]
        if missing:
            response = await admin.create_topics(
                [_new_topic(name, wanted[name], settings) for name in missing],
                timeout_ms=_REQUEST_SECONDS * 1_000,
            )
            for name, code, *reason in response.topic_errors:
                _refuse_failure(name, wanted[name], for_code(code), reason[0] if reason else None)
            await _wait_until_led(admin, {name: wanted[name] for name in missing})
    return missing, list(_less_than_configured(settings, values))


async def check_topics(settings: ProducerSettings) -> list[str]:
    """Raise Halt if a configured topic isn't as the configuration says; change nothing.

    Returns the names of the topics whose own settings this user may not see: of those only partitions are compared.
    Raises UnavailableError and ConfigError as `start_client`.
    """
    wanted = settings.kafka_config.topics
    async with admin_client(settings) as admin:
        values = await require_topics(admin, wanted)
    less = "\n".join(_less_than_configured(settings, values))
    if less:
        raise Halt(less, EXIT_TOPICS)
    return [name for name in wanted if name not in values]


async def require_topics(
    admin: AIOKafkaAdminClient, wanted: Mapping[str, TopicSettings]
) -> Mapping[str, Mapping[str, str]]:
    """Raise Halt unless all these topics are there, with as many partitions, and none is compacted.

    Returns each topic's own settings, as far as this user may see them.
    """
    # One after the other: one that fails would leave the other behind, on a client that closes.
    found = await _partitions(admin)
    values = await _own_settings(admin, wanted)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise Halt(
            f"expected the topics {', '.join(wanted)}, got none called {', '.join(missing)}: "
            "`sitelog topics create` creates them",
            EXIT_TOPICS,
        )
    _refuse_other_counts(wanted, found)
    _refuse_compacted(values)
    unseen = [name for name in wanted if name not in values]
    if unseen:
        log.info("%s: settings aren't compared, as this user may not see them (DescribeConfigs)", ", ".join(unseen))
    return values


@asynccontextmanager
async def admin_client(settings: ProducerSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Connect for a few requests; whatever Kafka fails at meanwhile becomes UnavailableError, see `start_client`."""
    admin = AIOKafkaAdminClient(request_timeout_ms=_REQUEST_SECONDS * 1_000, **kafka_client_options(settings))
    try:
        await start_client(admin, settings)
        yield admin
    except (KafkaError, OSError, TimeoutError) as error:
        servers = ", ".join(settings.kafka_config.bootstrap_servers)
        raise UnavailableError(
            f"Kafka at {servers} didn't answer as expected: {reason_of(error)}. Try again"
        ) from error
    finally:
        await admin.close()


async def _partitions(admin: AIOKafkaAdminClient) -> dict[str, list[Mapping[str, Any]]]:
    """Return every topic's partitions as the brokers describe them.

    Asks for all topics: asking by name lets a broker with auto.create.topics.enable create them on the spot.
    """
    return {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics()}


async def _own_settings(admin: AIOKafkaAdminClient, topics: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return what the brokers go by for each topic, their defaults included; without those that may not be seen.

    Raises KafkaError where a broker can't say it.
    """
    keys = dict.fromkeys((_POLICY, *_AT_LEAST))
    responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name, keys) for name in topics])
    resources = [resource for response in responses for resource in response.resources]
    for code, reason, _, name, _ in resources:
        if code and code not in _UNSEEN:
            error = for_code(code)
            raise error(f"the settings of topic {name}: {reason or error.description}")
    return {name: {key: value for key, value, *_ in entries} for code, _, _, name, entries in resources if not code}


def _refuse_compacted(values: Mapping[str, Mapping[str, str]]) -> None:
    for name, own in values.items():
        if "compact" in own.get(_POLICY, ""):
            raise Halt(
                f"topic {name}: expected {_POLICY} delete, found {own[_POLICY]}: compaction deletes events, and such a "
                f"topic can't be a log. Run {_command(name)} {_POLICY}=delete",
                EXIT_TOPICS,
            )


def _less_than_configured(settings: ProducerSettings, values: Mapping[str, Mapping[str, str]]) -> Iterable[str]:
    for name, own in values.items():
        wanted = _configs(settings.kafka_config.topics[name], settings)
        less = [key for key in _AT_LEAST if key in own and _amount(own[key]) < _amount(wanted[key])]
        for key in less:
            expected = f"{key} of at least {wanted[key]}{_reason(settings) if key == _SIZE else ''}"
            yield f"topic {name}: expected {expected}, as the configuration says, found {own[key]}"
        if less:
            change = ",".join(f"{key}={wanted[key]}" for key in less)
            yield f"Run {_command(name)} {change}, or lower what is configured"


def _reason(settings: ProducerSettings) -> str:
    """Say what a topic's largest batch is made of; no setting has this number, nor the name that Kafka has for it."""
    append = settings.append
    largest = "event_bytes_max" if append.event_bytes_max >= append.batch_bytes else "batch_bytes"
    return f" (append.{largest}, {getattr(append, largest)}, and {OVERHEAD_BYTES} for headers and batch)"


def _command(topic: str) -> str:
    """Return the beginning of Kafka's command that changes a topic's settings."""
    return f"kafka-configs.sh --bootstrap-server SERVER --alter --entity-type topics --entity-name {topic} --add-config"


def _amount(value: str) -> float:
    """Return a setting's number; -1 is Kafka's word for no limit."""
    return math.inf if value == "-1" else int(value)


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


def _new_topic(name: str, topic: TopicSettings, settings: ProducerSettings) -> NewTopic:
    return NewTopic(
        name,
        num_partitions=topic.partitions,
        replication_factor=topic.replication_factor,
        topic_configs=_configs(topic, settings),
    )


def _configs(topic: TopicSettings, settings: ProducerSettings) -> dict[str, str]:
    """Return the settings that a topic of ours has in Kafka."""
    return {
        _POLICY: "delete",
        "retention.ms": str(topic.retention_ms),
        "compression.type": topic.compression_type,
        _SIZE: str(settings.append.message_bytes_max),
        "min.insync.replicas": str(_IN_SYNC_MIN if topic.replication_factor > _IN_SYNC_MIN else 1),
        # The broker's clock: by a producer's, retention deletes at once what a backfill gives the times of long ago.
        "message.timestamp.type": "LogAppendTime",
    }


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
