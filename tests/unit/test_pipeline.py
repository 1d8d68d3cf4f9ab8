"""What the pipeline does about each way in which a batch can fail."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import asyncpg

from sitelog.agents._metrics import Metrics
from sitelog.agents._pipeline import Pipeline
from sitelog.agents._progress import Progress
from sitelog.projections._transaction import Outcome, Slice
from sitelog.streams._batch import Claim, RecordBatch
from sitelog.streams.codec import Codec
from sitelog.streams.errors import Halt, Retry
from sitelog.streams.examples import example
from tests.partition import Record
from tests.registries import FilledRegistry

TOPIC = "customer-sites-events"
CREATED = Codec().encode(example("site_created"))


class Scripted:
    """A projector that answers as it is told: an error is raised, anything else is the outcome."""

    def __init__(self, *answers: Outcome | Exception) -> None:
        self.answers = list(answers)
        self.tries: list[tuple[list[int], bool]] = []
        self.reasons: list[str | None] = []

    async def apply(self, _: Any, part: Slice, *, check_known: bool = False) -> Outcome:
        self.tries.append(([item.offset for item in part.items], check_known))
        self.reasons += [item.problem and item.problem.reason for item in part.items]
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Heard:
    """What the pipeline tells the transport."""

    def __init__(self) -> None:
        self.applied_to: list[int] = []
        self.fenced: list[Claim] = []
        self.reclaimed: list[Claim] = []
        self.halts: list[Halt] = []

    def applied(self, batch: RecordBatch) -> None:
        self.applied_to.append(batch.end)

    def fence(self, claim: Claim) -> None:
        self.fenced.append(claim)

    def reclaim(self, claim: Claim) -> None:
        self.reclaimed.append(claim)

    def halt(self, halt: Halt) -> None:
        self.halts.append(halt)


class Pool:
    @asynccontextmanager
    async def acquire(self, timeout: float) -> AsyncIterator[None]:  # noqa: ASYNC109 - asyncpg's own
        assert timeout > 0
        yield


def seen(constraint: str = "event_log_event_id_key") -> asyncpg.UniqueViolationError:
    error = asyncpg.UniqueViolationError("duplicate key value")
    error.constraint_name = constraint
    return error


APPLIED = Outcome("applied", events=1)


async def run(
    projector: Scripted,
    records: int = 1,
    *,
    during: Callable[[Claim], None] = lambda _: None,
    codec: Codec | None = None,
    value: bytes = CREATED,
) -> tuple[Heard, Claim]:
    heard = Heard()
    progress = Progress()
    pipeline = Pipeline(
        cast("Any", projector),
        codec or Codec(),
        pool=lambda: cast("Any", Pool()),
        consumer=lambda: heard,
        metrics=Metrics("projector", progress),
        progress=progress,
        in_flight_max=2,
    )
    claim = Claim(TOPIC, 0, epoch=7, read_offset=0, applied_offset=0)
    await pipeline.submit(batch(claim, records, value))
    await asyncio.sleep(0)
    during(claim)
    assert await pipeline.wait_idle(10)
    return heard, claim


def batch(claim: Claim, records: int, value: bytes) -> RecordBatch:
    read: Sequence[Any] = [Record(offset, 0, b"site-1", value) for offset in range(records)]
    return RecordBatch(claim, 0, records, read, records)


async def test_a_batch_that_is_applied_is_told() -> None:
    heard, _ = await run(Scripted(APPLIED), 3)
    assert (heard.applied_to, heard.halts) == ([3], [])


async def test_a_batch_that_was_applied_before_counts_as_applied() -> None:
    heard, _ = await run(Scripted(Outcome("applied_before")))
    assert heard.applied_to == [1]


async def test_a_fenced_claim_and_a_lost_batch_are_told_apart() -> None:
    heard, claim = await run(Scripted(Outcome("fenced")))
    assert (heard.fenced, heard.reclaimed, heard.applied_to) == ([claim], [], [])
    heard, claim = await run(Scripted(Outcome("lost")))
    assert (heard.fenced, heard.reclaimed, heard.applied_to) == ([], [claim], [])


async def test_after_a_repetition_the_same_batch_is_checked_for_more() -> None:
    projector = Scripted(seen(), APPLIED)
    heard, _ = await run(projector)
    assert projector.tries == [([0], False), ([0], True)]
    assert heard.applied_to == [1]


async def test_a_repetition_that_comes_in_by_another_partition_meanwhile_is_no_bad_record() -> None:
    projector = Scripted(seen(), seen("parked_event_record_key"), seen(), APPLIED)
    heard, _ = await run(projector, 2)
    assert projector.tries == [([0, 1], False), ([0, 1], True), ([0, 1], True), ([0, 1], True)]
    assert set(projector.reasons) == {None}
    assert (heard.applied_to, heard.halts) == ([2], [])


async def test_while_the_database_is_away_the_batch_is_tried_again() -> None:
    projector = Scripted(ConnectionRefusedError(), asyncpg.CannotConnectNowError("starting up"), APPLIED)
    heard, _ = await run(projector)
    assert (heard.applied_to, heard.halts) == ([1], [])


async def test_a_batch_of_a_claim_that_is_over_is_dropped() -> None:
    def void(claim: Claim) -> None:
        claim.void = True

    projector = Scripted(*[ConnectionRefusedError()] * 100)
    heard, _ = await run(projector, during=void)
    assert (heard.applied_to, heard.halts, heard.fenced) == ([], [], [])


async def test_a_record_that_postgres_refuses_is_found_by_halves_and_put_aside() -> None:
    refused = asyncpg.NumericValueOutOfRangeError("integer out of range")
    projector = Scripted(refused, APPLIED, refused, refused, APPLIED, APPLIED)
    heard, _ = await run(projector, 4)
    assert [offsets for offsets, _ in projector.tries] == [[0, 1, 2, 3], [0, 1], [2, 3], [2], [2], [3]]
    assert projector.reasons.count("refused_by_database") == 1
    assert (heard.applied_to, heard.halts) == ([4], [])


async def test_a_record_that_can_not_even_be_put_aside_ends_the_process() -> None:
    refused = asyncpg.NumericValueOutOfRangeError("integer out of range")
    heard, _ = await run(Scripted(refused, refused))
    (halt,) = heard.halts
    assert f"{TOPIC}[0] offset 0: can't even be put aside" in str(halt)


async def test_a_broken_key_of_the_log_itself_is_no_event_s_fault_and_ends_the_process() -> None:
    broken = asyncpg.UniqueViolationError("duplicate key value violates unique constraint")
    broken.schema_name, broken.constraint_name = "sitelog", "event_log_pkey"
    projector = Scripted(broken)
    heard, _ = await run(projector, 4)
    assert len(projector.tries) == 1
    (halt,) = heard.halts
    assert str(halt) == f"{TOPIC}[0]: UniqueViolationError: duplicate key value violates unique constraint"


async def test_a_batch_whose_claim_is_over_before_the_registry_answered_is_dropped() -> None:
    class Away(FilledRegistry):
        async def prepare(self, schema_ids: Iterable[int]) -> None:
            raise Retry(f"no answer for {schema_ids}")

    def void(claim: Claim) -> None:
        claim.void = True

    projector = Scripted()
    heard, _ = await run(projector, during=void, codec=Codec(Away()), value=b"\x00\x00\x00\x00\x07body")
    assert (projector.tries, heard.applied_to, heard.halts) == ([], [], [])


async def test_whatever_nobody_expects_ends_the_process_by_name() -> None:
    heard, _ = await run(Scripted(RuntimeError("a bug")))
    (halt,) = heard.halts
    assert str(halt) == f"{TOPIC}[0]: RuntimeError: a bug"
