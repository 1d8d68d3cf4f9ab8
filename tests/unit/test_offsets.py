"""What is made of the answers of a broker that is asked for a topic's offsets."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from aiokafka import TopicPartition

from sitelog.streams._offsets import Offsets, Spot
from sitelog.streams.settings import Settings

SECONDS = 1_763_000_000


class Record(NamedTuple):
    """As much of a record as is looked at."""

    timestamp: int


class Consumer:
    """Answers as aiokafka's does, with one record of each partition."""

    def __init__(self, timestamps: dict[TopicPartition, int]) -> None:
        self._timestamps = timestamps

    def assign(self, partitions: list[TopicPartition]) -> None:
        pass

    def seek(self, partition: TopicPartition, offset: int) -> None:
        pass

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[Record]]:
        assert timeout_ms > 0
        return {partition: [Record(self._timestamps[partition])] for partition in partitions}


def asking(consumer: Any) -> Offsets:
    offsets = object.__new__(Offsets)
    offsets._consumer = consumer
    offsets._settings = Settings.model_construct()
    return offsets


@pytest.mark.parametrize("timestamp", [SECONDS * 1_000_000, SECONDS * 1_000_000_000, -(1 << 63)])
async def test_a_time_in_another_unit_than_milliseconds_is_left_out_and_the_others_are_told(timestamp: int) -> None:
    offsets = asking(Consumer({TopicPartition("topic", 0): SECONDS * 1_000, TopicPartition("topic", 1): timestamp}))
    found = await offsets.append_times([Spot("topic", 0, 7), Spot("topic", 1, 8)])
    assert found == {Spot("topic", 0, 7): datetime.fromtimestamp(SECONDS, UTC)}
