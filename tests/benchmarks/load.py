"""Fills the topic: as fast as it can, from bytes made before."""

import time
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final, NamedTuple

from confluent_kafka import Producer

from sitelog.streams.settings import Settings
from tests.benchmarks.events import Message

FLUSH_SECONDS_MAX = 120
LOADED_AT_ONCE: Final = 200_000
"""Messages made before any of them is sent: so many fit into memory beside a million sites."""


class Loaded(NamedTuple):
    """What went into the topic, and how long the broker took for it."""

    events: int
    value_bytes: int
    seconds: float


def load(settings: Settings, topic: str, messages: Iterable[Message]) -> Loaded:
    """Append all messages to the topic, by the key's partition and in their order. Raises when one is refused."""
    prepared = list(messages)
    failures: list[Any] = []
    producer = Producer(
        {
            "bootstrap.servers": ",".join(settings.kafka_config.bootstrap_servers),
            "enable.idempotence": True,
            "compression.type": settings.kafka_config.topics[topic].compression_type,
            "partitioner": "murmur2_random",
            "linger.ms": settings.append.linger_ms,
            "batch.size": settings.append.batch_bytes,
            "queue.buffering.max.messages": 100_000,
            # Errors only: the first retries on a broker that has just started are no news.
            "log_level": 3,
        }
    )
    started = time.monotonic()
    for message in prepared:
        _produce(producer, topic, message, failures)
    unsent = producer.flush(FLUSH_SECONDS_MAX)
    if unsent or failures:
        raise RuntimeError(f"expected all {len(prepared)} events to be taken, got {unsent} unsent, {failures[:1]}")
    return Loaded(len(prepared), sum(len(message.value) for message in prepared), time.monotonic() - started)


def load_pieces(settings: Settings, topic: str, messages: Iterable[Message], at_once: int = LOADED_AT_ONCE) -> None:
    """Append all messages, of which no more than `at_once` are in memory."""
    rest = iter(messages)
    while piece := list(islice(rest, at_once)):
        load(settings, topic, piece)


def _produce(producer: Producer, topic: str, message: Message, failures: list[Any]) -> None:
    """Hand one message over, waiting while the producer's queue is full."""

    def report(error: Any, _: Any) -> None:
        if error is not None:
            failures.append(error)

    while True:
        try:
            producer.produce(topic, message.value, message.key, on_delivery=report)
        except BufferError:
            producer.poll(0.1)
        else:
            producer.poll(0)
            return
