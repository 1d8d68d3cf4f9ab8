"""What is made of the answers of a broker that is asked for a topic's offsets."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from aiokafka import TopicPartition
from aiokafka.cluster import ClusterMetadata
from aiokafka.protocol.metadata import MetadataResponse_v1

from sitelog.streams._offsets import Bounds, Offsets, Place, Spot
from sitelog.streams.settings import Settings

SECONDS = 1_763_000_000


class Record(NamedTuple):
    """As much of a record as is looked at."""

    timestamp: int


class Consumer:
    """Answers as aiokafka's does, with one record of each partition."""

    def __init__(self, timestamps: dict[TopicPartition, int]) -> None:
        self._timestamps = timestamps
        self._client = self

    async def fetch_all_metadata(self) -> ClusterMetadata:
        cluster = ClusterMetadata()
        partitions = [(5 if leader < 0 else 0, number, leader, [1], []) for number, leader in enumerate((1, -1, 1))]
        cluster.update_metadata(MetadataResponse_v1([(1, "broker", 9092, None)], 1, [(0, "topic", False, partitions)]))
        return cluster

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        assert TopicPartition("topic", 1) not in partitions, "aiokafka asks again until it has a leader"
        return dict.fromkeys(partitions, 3)

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 9)

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


async def test_a_partition_without_a_leader_hides_none_of_the_others() -> None:
    asked = [Place("topic", number) for number in range(4)] + [Place("no-topic", 0)]
    assert await asking(Consumer({})).bounds(asked) == {
        Place("topic", 0): Bounds(3, 9),
        Place("topic", 1): None,
        Place("topic", 2): Bounds(3, 9),
    }


@pytest.mark.parametrize("timestamp", [SECONDS * 1_000_000, SECONDS * 1_000_000_000, -(1 << 63)])
async def test_a_time_in_another_unit_than_milliseconds_is_left_out_and_the_others_are_told(timestamp: int) -> None:
    offsets = asking(Consumer({TopicPartition("topic", 0): SECONDS * 1_000, TopicPartition("topic", 1): timestamp}))
    found = await offsets.append_times([Spot("topic", 0, 7), Spot("topic", 1, 8)])
    assert found == {Spot("topic", 0, 7): datetime.fromtimestamp(SECONDS, UTC)}
