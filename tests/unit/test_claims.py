"""When a claim that a newer generation refuses is made all the same."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP

from sitelog.streams import transport as module
from sitelog.streams._batch import Position
from sitelog.streams.errors import Retry
from sitelog.streams.transport import BatchConsumer

PARTITION = TP("customer-sites-events", 0)
GRACE_SECONDS = 20.0
STEP_SECONDS = 11.0
"""That pass with each try."""

Answer = Position | Retry | None


class World:
    """Postgres and Kafka, each with one answer for each try, and a clock."""

    def __init__(self, *answers: Answer, kafka_answers: bool = True) -> None:
        self.now = 0.0
        self.forced: list[bool] = []
        self._answers = list(answers)
        self._kafka_answers = kafka_answers

    async def claim(self, _topic: str, _partition: int, _generation: int, *, force: bool) -> Position | None:
        self.forced.append(force)
        self.now += STEP_SECONDS
        answer = self._answers.pop(0)
        if isinstance(answer, Retry):
            raise answer
        return answer

    async def bounds(self, _: TP) -> tuple[int, int]:
        if not self._kafka_answers:
            self.now += STEP_SECONDS
            self._kafka_answers = True
            raise Retry("Kafka did not answer")
        return 0, 1

    async def seek_to_position(self, _: TP, __: Position) -> None:
        """Have it done."""


async def claimed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim until it works."""
    monkeypatch.setattr(module, "monotonic", lambda: world.now)
    monkeypatch.setattr(module, "CLAIM_RETRY_SECONDS", 0)
    consumer = cast("Any", object.__new__(BatchConsumer))
    consumer.app = SimpleNamespace(claim_grace_seconds=GRACE_SECONDS, consumer_generation_id=3, positions=world)
    consumer.log = logging.getLogger(__name__)
    consumer._thread = world
    consumer._term = term = object()
    consumer.claims, consumer._claiming, consumer._claims_changed = {}, {PARTITION: None}, asyncio.Event()
    async with asyncio.timeout(10):
        await consumer._claim_patiently(PARTITION, term)
    assert consumer.claims[PARTITION].epoch == 7


HELD = Position(0, 7, None)


async def test_a_refusal_is_overcome_once_it_has_lasted_for_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(None, None, None, HELD)
    await claimed(world, monkeypatch)
    assert world.forced == [False, False, False, True]


async def test_while_postgres_is_away_nobody_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(Retry("away"), Retry("away"), Retry("away"), None, Retry("away"), None, HELD)
    await claimed(world, monkeypatch)
    assert world.forced == [False] * 7


async def test_who_is_cut_off_from_kafka_overcomes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(None, None, None, HELD, kafka_answers=False)
    await claimed(world, monkeypatch)
    assert world.forced == [False] * 4
