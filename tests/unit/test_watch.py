"""What Kafka is asked about before anybody calls a worker stuck, and what its silence means."""

import asyncio
import logging
from collections.abc import Collection, Sequence
from typing import Any, cast

import pytest
from faust.types import TP

from sitelog.agents._progress import Progress
from sitelog.agents._watch import Watch
from sitelog.streams import transport
from sitelog.streams._batch import Claim
from sitelog.streams.errors import Retry
from sitelog.streams.transport import BatchConsumer

TOPIC = "customer-sites-events"


class Consumer:
    """Has claims, each with the end that Kafka has told, and remembers which of them Kafka is asked about."""

    def __init__(self, *ends: int | None) -> None:
        self.claims = {
            TP(TOPIC, partition): Claim(TOPIC, partition, epoch=7, read_offset=10, applied_offset=10)
            for partition in range(len(ends))
        }
        self.ends = list(ends)
        self.asked: list[list[int]] = []
        self.put_off: set[TP] = set()

    def put_offs(self) -> set[TP]:
        return self.put_off

    async def ends_of(self, tps: Collection[TP]) -> dict[TP, int]:
        return dict.fromkeys(tps, 50)

    def end_of(self, claim: Claim) -> int | None:
        return self.ends[claim.partition]

    async def unanswered(self, claims: Sequence[Claim]) -> str | None:
        self.asked.append([claim.partition for claim in claims])
        return "no answer"


async def look_twice(consumer: Consumer, *, between: int = 0) -> str | None:
    watch = Watch(cast("Any", None), Progress())
    assert await watch._unanswered(consumer) is None
    assert consumer.asked == []
    for claim in consumer.claims.values():
        claim.read_offset += between
        claim.applied_offset += between
    return await watch._unanswered(consumer)


async def test_kafka_is_asked_about_what_it_has_and_nobody_reads() -> None:
    consumer = Consumer(10, 30, None, 20)
    assert await look_twice(consumer) == "no answer"
    assert consumer.asked == [[1, 3]]


async def test_kafka_is_not_asked_about_what_is_being_read_or_applied() -> None:
    moving, in_hand, fenced = Consumer(30), Consumer(30), Consumer(30)
    in_hand.claims[TP(TOPIC, 0)].read_offset = 20
    fenced.claims[TP(TOPIC, 0)].fenced = True
    assert await look_twice(moving, between=5) is None
    assert await look_twice(in_hand) is None
    assert await look_twice(fenced) is None
    assert moving.asked + in_hand.asked + fenced.asked == []


class Client:
    """Kafka's client, which asks Kafka in vain, gets an answer, or doesn't even say so."""

    def __init__(self, outcome: Exception | None, *, hangs: bool = False) -> None:
        self._outcome = outcome
        self._hangs = hangs

    async def ends(self, _: Sequence[TP]) -> None:
        if self._hangs:
            await asyncio.Event().wait()
        if self._outcome is not None:
            raise self._outcome


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (Client(None), None),
        (Client(Retry("Kafka did not answer")), "Kafka did not answer"),
        (Client(None, hangs=True), None),
        (Client(RuntimeError("Event loop is closed")), None),
    ],
)
async def test_only_kafka_itself_is_a_reason_to_wait(
    client: Client, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "CLIENT_SECONDS_MAX", 0.01)
    consumer = cast("Any", object.__new__(BatchConsumer))
    consumer._thread, consumer.log = client, logging.getLogger(__name__)
    assert await consumer.unanswered([Claim(TOPIC, 0, epoch=7, read_offset=10, applied_offset=10)]) == expected


async def test_the_lag_of_a_partition_that_waits_is_told_and_that_of_one_that_is_gone_is_not() -> None:
    progress, consumer = Progress(), Consumer(30, 20, 40)
    watch = Watch(cast("Any", None), progress)
    watch._look_at(consumer)
    consumer.claims = {tp: claim for tp, claim in consumer.claims.items() if tp.partition == 0}
    consumer.put_off = {TP(TOPIC, 1)}
    watch._look_at(consumer)
    assert {place: seen.highwater for place, seen in progress.partitions.items()} == {(TOPIC, 0): 30, (TOPIC, 1): 20}
    await watch._look_at_put_off(consumer)
    assert {place: seen.highwater for place, seen in progress.partitions.items()} == {(TOPIC, 0): 30, (TOPIC, 1): 50}
