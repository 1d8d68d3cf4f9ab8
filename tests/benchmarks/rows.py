"""The same events for peers that read no Avro and merge nothing: each as its site's whole row after it, in JSON."""

from collections.abc import Iterable, Iterator
from typing import Final

import orjson

from sitelog.streams.settings import Settings
from tests.benchmarks.events import TOPIC, Message
from tests.benchmarks.latest import Latest, Reader

ROWS_TOPIC: Final = "customer-sites-rows"


def rows(messages: Iterable[Message]) -> Iterator[Message]:
    """Return one message for each of these, with its key, in their order; `version` counts the site's events."""
    reader, latest = Reader(), Latest()
    for message in messages:
        latest.take(*reader.read(message.value))
        yield Message(message.key, orjson.dumps(latest.row(message.key.decode())))


def with_rows_topic(settings: Settings) -> Settings:
    """Return these settings with the topic of rows in them, which is as the topic of events is."""
    kafka = settings.kafka_config
    topics = {**kafka.topics, ROWS_TOPIC: kafka.topics[TOPIC]}
    return settings.model_copy(update={"kafka_config": kafka.model_copy(update={"topics": topics})})
