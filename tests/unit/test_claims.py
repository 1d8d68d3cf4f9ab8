"""When a claim that a newer generation refuses is made all the same, and when one is given up and made anew."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP

from sitelog.streams import transport as module
from sitelog.streams._batch import Claim, Position
from sitelog.streams._fetched import LeanResult
from sitelog.streams.errors import Halt, Retry
from sitelog.streams.transport import BatchConsumer
from tests.partition import Record

PARTITION = TP("customer-sites-events", 0)
GRACE_SECONDS = 20.0
STEP_SECONDS = 11.0
"""That pass with each try."""

Answer = Position | Retry | None


class Ended:
    """A client whose part in the group has ended, and that takes no hints; `asked` is how often it was looked at."""

    asked = 0

    def missing_topics(self) -> list[str]:
        return []

    def coordinator_error(self) -> None:
        return None

    def ended_task(self) -> str:
        self.asked += 1
        return "its part in the group has ended: None"

    async def commit(self, _: object) -> bool:
        await asyncio.sleep(60)
        return True


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


def consumer_of(*partitions: TP) -> Any:
    """A consumer with so many partitions and nothing behind it."""
    consumer = cast("Any", object.__new__(BatchConsumer))
    consumer.log = logging.getLogger(__name__)
    consumer.claims, consumer._claiming, consumer._put_off, consumer._hints, consumer._hinted = {}, {}, {}, {}, {}
    consumer._claims_changed, consumer._progressed, consumer._term = asyncio.Event(), asyncio.Event(), object()
    consumer._get_active_partitions = lambda: set(partitions)
    return consumer


async def claimed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim until it works."""
    monkeypatch.setattr(module, "monotonic", lambda: world.now)
    monkeypatch.setattr(module, "CLAIM_RETRY_SECONDS", 0)
    consumer = consumer_of(PARTITION)
    consumer.app = SimpleNamespace(claim_grace_seconds=GRACE_SECONDS, consumer_generation_id=3, positions=world)
    consumer._thread = world
    consumer._claiming[PARTITION] = None
    async with asyncio.timeout(10):
        await consumer._claim_patiently(PARTITION, consumer._term)
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


@pytest.mark.parametrize(
    ("known", "first", "last", "is_read"),
    [(None, 0, 0, True), (0, 0, 0, True), (3, 3, 4, True), (0, 1, 1, False), (3, 4, 4, False), (4, 3, 4, False)],
)
def test_what_another_leader_has_is_read_under_a_claim_that_has_looked_at_what_was_applied_last(
    known: int | None, first: int, last: int, *, is_read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer, claim = consumer_of(PARTITION), Claim(*PARTITION, 7, 10, 10, leader_epoch=known)
    consumer.claims[PARTITION] = claim
    consumer.highwater = lambda _: 12
    monkeypatch.setattr(LeanResult, "epochs", {PARTITION: (first, last)})
    batch = consumer._batch(PARTITION, [Record(offset, offset - 5, b"site-1", b"") for offset in (10, 11)])
    if is_read:
        assert (batch.start, batch.end, claim.leader_epoch, claim.void) == (10, 12, last, False)
        assert claim.oldest_ms == 5
    else:
        assert (batch, claim.void, consumer.claims) == (None, True, {})


async def test_a_partition_that_is_put_off_is_claimed_when_that_is_over_and_not_before() -> None:
    consumer, claim, over = consumer_of(PARTITION), Claim(*PARTITION, 7, 0, 0), asyncio.Event()
    consumer.claims[PARTITION] = claim

    async def wait() -> None:
        await over.wait()

    consumer.put_off(claim, wait)
    assert (claim.void, consumer.claims, consumer.put_offs()) == (True, {}, {PARTITION})
    consumer._claim_missing()
    assert consumer._claiming == {}
    consumer._claims_changed.clear()
    over.set()
    await asyncio.wait_for(consumer._claims_changed.wait(), 10)
    assert consumer.put_offs() == set()
    consumer._claim_missing()
    assert set(consumer._claiming) == {PARTITION}
    consumer._new_term()


async def test_a_rebalance_ends_the_wait_of_a_partition_that_is_put_off() -> None:
    consumer, claim, ended = consumer_of(PARTITION), Claim(*PARTITION, 7, 0, 0), asyncio.Event()
    consumer.claims[PARTITION] = claim

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    consumer.put_off(claim, wait)
    await asyncio.sleep(0)
    consumer._new_term()
    await asyncio.wait_for(ended.wait(), 10)
    assert consumer.put_offs() == set()


async def test_a_claim_that_was_over_already_puts_nothing_off() -> None:
    consumer, claim, newer = consumer_of(PARTITION), Claim(*PARTITION, 7, 0, 0), Claim(*PARTITION, 8, 0, 0)
    consumer.claims[PARTITION] = newer

    async def wait() -> None:
        await asyncio.sleep(60)

    consumer.put_off(claim, wait)
    assert (consumer.claims, newer.void, consumer.put_offs()) == ({PARTITION: newer}, False, set())


async def test_what_goes_wrong_while_a_partition_is_put_off_ends_the_process() -> None:
    consumer, claim, halts = consumer_of(PARTITION), Claim(*PARTITION, 7, 0, 0), asyncio.Queue[Halt]()
    consumer.claims[PARTITION] = claim
    consumer.halt = halts.put_nowait

    async def refused() -> None:
        raise Halt("the registry refuses us", 66)

    consumer.put_off(claim, refused)
    halt = await asyncio.wait_for(halts.get(), 10)
    assert (str(halt), halt.exit_code) == ("the registry refuses us", 66)


@pytest.mark.parametrize("stopping", [False, True])
async def test_a_client_that_has_ended_ends_the_process_unless_that_is_stopping(
    monkeypatch: pytest.MonkeyPatch, *, stopping: bool
) -> None:
    consumer, thread, halts, stopped = consumer_of(), Ended(), [], asyncio.Event()
    consumer.app, consumer._thread, consumer.joined = SimpleNamespace(should_stop=stopping), thread, True
    consumer._stopped = consumer._crashed = stopped
    consumer.flow_active = True

    async def sleep(_: float) -> None:
        if thread.asked:
            stopped.set()

    monkeypatch.setattr(consumer, "sleep", sleep, raising=False)
    monkeypatch.setattr(consumer, "halt", halts.append)
    await BatchConsumer._watch.fun(consumer)
    assert thread.asked == 2
    assert {str(halt) for halt in halts} == (
        set() if stopping else {"Kafka's client can't go on: its part in the group has ended: None"}
    )


async def test_nobody_waits_long_for_the_last_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAST_HINT_SECONDS_MAX", 0.01)
    consumer, idle = consumer_of(PARTITION), asyncio.Event()
    idle.set()

    async def wait_idle(_: float) -> bool:
        return await idle.wait()

    consumer.app = SimpleNamespace(should_stop=True, drain_seconds=1, sink=SimpleNamespace(wait_idle=wait_idle))
    consumer._thread = Ended()
    monkeypatch.setattr(consumer, "commit", consumer.force_commit)
    put = consumer._hints
    consumer._new_term = lambda: put.update({PARTITION: 1})
    await asyncio.wait_for(consumer.wait_empty(), 10)
    assert consumer._hinted == {}
