"""What the pipeline does about each way in which a batch can fail."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from time import monotonic
from typing import Any, NoReturn

import asyncpg
import pytest

from sitelog.agents import _pipeline as module
from sitelog.agents._pipeline import Pipeline
from sitelog.agents._progress import Progress
from sitelog.agents._spans import NO_SPANS, NoSpans, Spans
from sitelog.projections._aside import TooMuchAside, Trial
from sitelog.projections._packed import UnfitValueError
from sitelog.projections._slice import Outcome, Slice
from sitelog.streams._batch import Claim, RecordBatch, Wait
from sitelog.streams.codec import Codec
from sitelog.streams.errors import Halt, Retry, SchemasAway
from sitelog.streams.examples import example
from tests.partition import Record
from tests.pipelines import pipeline_around
from tests.registries import FilledRegistry
from tests.until import until

TOPIC = "customer-sites-events"
SHARED = 100
SHARED_BYTES = 100_000
CREATED = Codec().encode(example("site_created"))


class Scripted:
    """A projector that answers as it is told: an error is raised, anything else is the outcome."""

    def __init__(self, *answers: Outcome | Exception) -> None:
        self.answers = list(answers)
        self.tries: list[tuple[list[int], bool]] = []
        self.reasons: list[str | None] = []
        self.trials: list[tuple[int, bool] | None] = []

    async def apply(
        self, _: Any, parts: Sequence[Slice], *, check_known: bool = False, trial: Trial | None = None
    ) -> list[Outcome]:
        (part,) = parts
        self.trials.append(trial and (trial.records, trial.problem is not None))
        self.tries.append(([item.offset for item in part.items], check_known))
        self.reasons += [item.problem and item.problem.reason for item in part.items]
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [answer]


class Held:
    """A projector whose transactions wait until they are let go, or fail if they are of several partitions.

    `transactions` are the partitions of each, `verdicts` what becomes of theirs unless they are applied.
    """

    def __init__(self, *, together: Exception | None = None, **verdicts: Outcome) -> None:
        self.transactions: list[list[int]] = []
        self.go = asyncio.Event()
        self._together = together
        self._verdicts = verdicts

    async def apply(self, _: Any, parts: Sequence[Slice], **__: object) -> list[Outcome]:
        self.transactions.append([part.partition for part in parts])
        await self.go.wait()
        if self._together is not None and len(parts) > 1:
            raise self._together
        return [self._verdicts.get(f"of_{part.partition}", APPLIED) for part in parts]


class Heard:
    """What the pipeline tells the transport."""

    def __init__(self) -> None:
        self.applied_to: list[int] = []
        self.applied_of: list[int] = []
        self.fenced: list[Claim] = []
        self.reclaimed: list[Claim] = []
        self.put_offs: list[tuple[Claim, Wait]] = []
        self.halts: list[Halt] = []

    def applied(self, batch: RecordBatch) -> None:
        self.applied_to.append(batch.end)
        self.applied_of.append(batch.partition)

    def fence(self, claim: Claim) -> None:
        self.fenced.append(claim)

    def reclaim(self, claim: Claim) -> None:
        self.reclaimed.append(claim)

    def put_off(self, claim: Claim, until: Wait) -> None:
        claim.void = True
        self.put_offs.append((claim, until))

    def halt(self, halt: Halt) -> None:
        self.halts.append(halt)


class Pool:
    @asynccontextmanager
    async def acquire(self, timeout: float) -> AsyncIterator[None]:  # noqa: ASYNC109 - asyncpg's own
        assert timeout > 0
        yield


def seen(constraint: str = "event_log_event_id_key") -> asyncpg.UniqueViolationError:
    error = asyncpg.UniqueViolationError("duplicate key value")
    error.schema_name, error.constraint_name = "sitelog", constraint
    return error


APPLIED = Outcome("applied", events=1)


def pipeline_of(
    projector: Scripted | Held,
    heard: Heard,
    codec: Codec | None = None,
    spans: Spans = NO_SPANS,
    *,
    held_seconds_max: float = 60,
    progress: Progress | None = None,
) -> Pipeline:
    return pipeline_around(
        projector,
        codec or Codec(),
        pool=Pool(),
        consumer=heard,
        progress=progress or Progress(),
        spans=spans,
        in_flight_max=2,
        shared_records_max=SHARED,
        shared_bytes_max=SHARED_BYTES,
        held_seconds_max=held_seconds_max,
    )


def claim_of(partition: int) -> Claim:
    return Claim(TOPIC, partition, epoch=7, read_offset=0, applied_offset=0)


async def run(
    projector: Scripted,
    records: int = 1,
    *,
    during: Callable[[Claim], None] = lambda _: None,
    codec: Codec | None = None,
    value: bytes = CREATED,
    held_seconds_max: float = 60,
) -> tuple[Heard, Claim]:
    heard = Heard()
    pipeline = pipeline_of(projector, heard, codec, held_seconds_max=held_seconds_max)
    claim = claim_of(0)
    await pipeline.submit(batch(claim, records, value))
    await asyncio.sleep(0)
    during(claim)
    assert await pipeline.wait_idle(10)
    return heard, claim


def batch(claim: Claim, records: int, value: bytes = CREATED, *, start: int = 0) -> RecordBatch:
    end = start + records
    read: Sequence[Any] = [Record(offset, 0, b"site-1", value) for offset in range(start, end)]
    return RecordBatch(claim, start, end, read, end)


def counted(pipeline: Pipeline, metric: str, **labels: str) -> float | None:
    return pipeline._metrics.registry.get_sample_value(metric, {"consumer": "projector", **labels})


async def test_a_batch_that_is_applied_is_told() -> None:
    heard, _ = await run(Scripted(APPLIED), 3)
    assert (heard.applied_to, heard.halts) == ([3], [])


async def test_a_batch_that_would_set_too_much_free_is_applied_by_halves() -> None:
    projector = Scripted(TooMuchAside(), APPLIED, TooMuchAside(), APPLIED, APPLIED)
    heard, _ = await run(projector, 4)
    assert [tried for tried, _ in projector.tries] == [[0, 1, 2, 3], [0, 1], [2, 3], [2], [3]]
    assert projector.reasons == [None] * 10
    assert (heard.applied_to, heard.halts) == ([4], [])


async def test_a_batch_is_applied_until_it_is_finished() -> None:
    unfinished = Outcome("applied", events=1, unfinished=True)
    projector = Scripted(unfinished, ConnectionResetError(), unfinished, APPLIED)
    heard, _ = await run(projector)
    assert len(projector.tries) == 4
    assert (heard.applied_to, heard.halts) == ([1], [])


@pytest.mark.parametrize(
    ("ending", "events"),
    [
        (APPLIED, 5),
        (SchemasAway("schema registry: no answer", frozenset({9})), 4),
        (Halt("the log has a hole"), 4),
    ],
    ids=["all", "a schema is missing", "the worker ends"],
)
async def test_what_is_committed_counts_whatever_becomes_of_the_rest(ending: Outcome | Exception, events: int) -> None:
    unfinished = Outcome("applied", events=2, duplicates=1, unfinished=True)
    pipeline = pipeline_of(Scripted(unfinished, ConnectionResetError(), unfinished, ending), Heard())
    await pipeline.submit(batch(claim_of(0), 1))
    assert await pipeline.wait_idle(10)
    assert counted(pipeline, "sitelog_events_total", topic=TOPIC) == events
    assert counted(pipeline, "sitelog_duplicates_total") == 2


async def test_the_one_that_postgres_refuses_of_many_that_go_on_is_found_by_halves() -> None:
    refused = asyncpg.NumericValueOutOfRangeError("integer out of range")
    unfinished = Outcome("applied", events=1, unfinished=True)
    projector = Scripted(unfinished, refused, unfinished, unfinished, refused, unfinished, refused, refused, APPLIED)
    heard, _ = await run(projector)
    tried = [None, None, (1, False), (2, False), (4, False), (2, False), (4, False), (2, False), (1, False)]
    assert projector.trials == tried
    assert "refused_by_database" not in projector.reasons
    assert (heard.applied_to, heard.halts) == ([1], [])


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


@pytest.mark.parametrize(
    "ended",
    [
        asyncpg.IdleInTransactionSessionTimeoutError("terminating connection"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.QueryCanceledError("canceling statement due to statement timeout"),
        TimeoutError(),
    ],
)
async def test_a_batch_that_takes_longer_than_a_transaction_may_is_applied_by_halves(ended: Exception) -> None:
    projector = Scripted(*[ended] * 4, APPLIED, APPLIED, ended, APPLIED)
    heard, _ = await run(projector, 4, held_seconds_max=0)
    # The first time may have been an outage, and what was committed although nobody knows must come whole.
    assert [offsets for offsets, _ in projector.tries] == [*[[0, 1, 2, 3]] * 2, *[[0, 1]] * 2, [0], [1], *[[2, 3]] * 2]
    assert (heard.applied_to, heard.halts) == ([4], [])


async def test_a_batch_that_waits_for_a_lock_and_a_single_record_are_tried_again_as_they_are() -> None:
    projector = Scripted(asyncpg.LockNotAvailableError("lock timeout"), APPLIED)
    heard, _ = await run(projector, 4, held_seconds_max=0)
    assert ([len(offsets) for offsets, _ in projector.tries], heard.applied_to) == ([4, 4], [4])
    projector = Scripted(TimeoutError(), APPLIED)
    heard, _ = await run(projector, 1, held_seconds_max=0)
    assert ([len(offsets) for offsets, _ in projector.tries], heard.applied_to) == ([1, 1], [1])


async def test_a_batch_that_was_committed_without_a_word_is_applied_however_long_that_took() -> None:
    heard, _ = await run(Scripted(TimeoutError(), Outcome("applied_before")), 4, held_seconds_max=0)
    assert (heard.applied_to, heard.reclaimed) == ([4], [])


async def test_nobody_waits_any_more_once_the_claim_is_over() -> None:
    progress = Progress()
    progress.seen(TOPIC, 0, 0, 1)
    pipeline = pipeline_of(Scripted(*[ConnectionRefusedError()] * 100), Heard(), progress=progress)
    await pipeline.submit(batch(claim := claim_of(0), 1))

    async def failures() -> list[str]:
        return progress.failures()

    await until("a batch that waits", failures)
    claim.void = True
    assert await pipeline.wait_idle(10)
    assert progress.failures() == []


async def test_a_repetition_that_no_look_finds_ends_the_process_by_name() -> None:
    heard, _ = await run(Scripted(*[seen("parked_event_record_key")] * 100))
    (halt,) = heard.halts
    assert str(halt) == f"{TOPIC}[0]: UniqueViolationError: duplicate key value"


async def test_a_batch_of_a_claim_that_is_over_is_dropped() -> None:
    def void(claim: Claim) -> None:
        claim.void = True

    projector = Scripted(*[ConnectionRefusedError()] * 100)
    heard, _ = await run(projector, during=void)
    assert (heard.applied_to, heard.halts, heard.fenced) == ([], [], [])


@pytest.mark.parametrize(
    "refused",
    [asyncpg.NumericValueOutOfRangeError("integer out of range"), UnfitValueError("area: expected what fits …")],
)
async def test_a_record_that_postgres_cant_hold_is_found_by_halves_and_put_aside(refused: Exception) -> None:
    projector = Scripted(refused, APPLIED, refused, *[refused] * 3, APPLIED, APPLIED)
    heard, _ = await run(projector, 4)
    assert [offsets for offsets, _ in projector.tries] == [[0, 1, 2, 3], [0, 1], [2, 3], *[[2]] * 4, [3]]
    # Before it is itself put aside, none of those that it may set free has turned out to be the reason.
    assert projector.trials[3:7] == [None, (1, False), (1, True), None]
    assert projector.reasons.count("refused_by_database") == 1
    assert (heard.applied_to, heard.halts) == ([4], [])


async def test_a_record_that_can_not_even_be_put_aside_ends_the_process() -> None:
    refused = asyncpg.NumericValueOutOfRangeError("integer out of range")
    heard, _ = await run(Scripted(*[refused] * 6))
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


async def test_a_registry_that_answers_again_is_no_reason_to_wait_any_more() -> None:
    class Recovers(FilledRegistry):
        was_away = False

        async def prepare(self, schema_ids: Iterable[int]) -> None:
            if not self.was_away:
                self.was_away = True
                raise Retry(f"no answer for {schema_ids}")
            await super().prepare(schema_ids)

    projector, progress = Held(), Progress()
    progress.seen(TOPIC, 0, 0, 1)
    pipeline = pipeline_of(projector, Heard(), Codec(registry := Recovers()), progress=progress)
    await pipeline.submit(batch(claim_of(0), 1, b"\x00\x00\x00\x00\x07body"))
    await until_in_hand(projector, 1)
    assert (registry.was_away, progress.failures()) == (True, [])
    await let_go(projector, pipeline)


class Away(FilledRegistry):
    """Answers only once it is back."""

    def __init__(self) -> None:
        super().__init__()
        self.is_back = False
        self.silent = False
        self.asks_in_vain = 0

    async def prepare(self, schema_ids: Iterable[int]) -> None:
        if self.silent:
            await asyncio.sleep(60)
        if not self.is_back:
            self.asks_in_vain += 1
            raise Retry(f"schema registry: no answer for {sorted(schema_ids)}")
        await super().prepare(schema_ids)


@pytest.mark.parametrize("silent", [False, True])
async def test_without_the_registry_nobody_waits_but_the_partition_that_needs_it(
    monkeypatch: pytest.MonkeyPatch, *, silent: bool
) -> None:
    monkeypatch.setattr(module, "IN_PLACE_SECONDS_MAX", 0.1)
    projector, progress, heard, registry = Held(), Progress(), Heard(), Away()
    registry.silent = silent
    pipeline = pipeline_of(projector, heard, Codec(registry), progress=progress)
    claim = claim_of(0)
    await pipeline.submit(batch(claim, 2))
    await until_in_hand(projector, 1)
    for start in (2, 3):
        await pipeline.submit(batch(claim, 1, b"\x00\x00\x00\x00\x07body", start=start))
        await pipeline.submit(batch(claim_of(start), 1))
    assert not await pipeline.wait_idle(0.3)
    assert heard.put_offs == []  # what was read before it is under way
    await let_go(projector, pipeline)
    assert sorted(heard.applied_of) == [0, 2, 3]
    ((put_off, until_known),) = heard.put_offs
    assert put_off is claim
    (failure,) = progress.failures()
    assert failure.startswith(f"{TOPIC}[0]: schema registry: no answer")
    registry.is_back, registry.silent = True, False
    await until_known()
    assert registry.asked == {7}
    progress.keep({(TOPIC, 0)})  # as it is claimed anew
    assert progress.failures() == []


UNKNOWN = b"\x00\x00\x00\x00\x07body"


async def test_what_is_read_already_behind_a_partition_that_was_put_off_leaves_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "IN_PLACE_SECONDS_MAX", 0.1)
    progress, heard, claim = Progress(), Heard(), claim_of(0)
    pipeline = pipeline_of(Held(), heard, Codec(Away()), progress=progress)
    for start in range(0, 3 * SHARED, SHARED):  # each has a group of its own
        await pipeline.submit(batch(claim, SHARED, UNKNOWN, start=start))
    assert await pipeline.wait_idle(10)
    assert ([one for one, _ in heard.put_offs], len(progress.failures())) == ([claim], 1)


async def test_what_one_has_asked_for_in_vain_nobody_else_waits_for_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_PLACE_SECONDS_MAX", 0.1)
    heard, registry = Heard(), Away()
    pipeline = pipeline_of(Held(), heard, Codec(registry))
    claims = [claim_of(partition) for partition in range(6)]
    for claim in claims:
        await pipeline.submit(batch(claim, 1, UNKNOWN))
    assert await pipeline.wait_idle(10)
    assert ([claim for claim, _ in heard.put_offs], registry.asks_in_vain <= 4) == (claims, True)  # two begin at once


async def test_the_registry_is_told_of_all_that_a_piece_needs_so_that_it_forgets_none_of_it() -> None:
    class Told(FilledRegistry):
        told: frozenset[int] = frozenset()

        async def prepare(self, schema_ids: Iterable[int]) -> None:
            self.told = frozenset(schema_ids)
            await super().prepare(schema_ids)

    projector, registry, known, claim = Held(), Told(), 6, claim_of(0)
    registry.asked.add(known)
    pipeline = pipeline_of(projector, Heard(), Codec(registry))
    both = [Record(offset, 0, b"site-1", b"\0" + (known + offset).to_bytes(4) + b"body") for offset in range(2)]
    await pipeline.submit(RecordBatch(claim, 0, 2, both, 2))
    await until_in_hand(projector, 1)
    assert registry.told == {known, known + 1}
    await let_go(projector, pipeline)


async def test_a_fenced_claim_is_not_put_off() -> None:
    heard, claim = Heard(), claim_of(0)
    claim.fenced = True
    pipeline = pipeline_of(Scripted(SchemasAway("schema registry: no answer", frozenset({9}))), heard)
    await pipeline.submit(batch(claim, 1))
    assert await pipeline.wait_idle(10)
    assert heard.put_offs == []


async def test_a_batch_that_frees_what_only_the_registry_can_read_waits_alone_too() -> None:
    projector = Scripted(SchemasAway("schema registry: no answer", frozenset({9})))
    progress, registry, heard = Progress(), Away(), Heard()
    pipeline = pipeline_of(projector, heard, Codec(registry), progress=progress)
    await pipeline.submit(batch(claim := claim_of(0), 1))
    assert await pipeline.wait_idle(10)
    assert progress.failures() == [f"{TOPIC}[0]: schema registry: no answer"]
    ((put_off, until_known),) = heard.put_offs
    assert put_off is claim
    registry.is_back = True
    await until_known()
    assert (registry.asked, heard.halts) == ({9}, [])


async def test_an_answer_of_the_registry_that_grows_old_while_a_batch_is_decoded_is_asked_for_again() -> None:
    class Forgetful(FilledRegistry):
        """Its answer is too old as soon as `decode` needs it, which can't wait for another."""

        def __init__(self) -> None:
            super().__init__()
            self.has_forgotten = False

        def knows(self, schema_id: int) -> bool:
            self.has_forgotten = True
            return super().knows(schema_id)

        def was_asked(self, schema_id: int) -> bool:
            return not self.has_forgotten and super().was_asked(schema_id)

    projector, registry = Scripted(APPLIED), Forgetful()
    heard, _ = await run(projector, codec=Codec(registry), value=b"\x00\x00\x00\x00\x07body")
    assert (projector.reasons, heard.applied_to, heard.halts) == (["unknown_schema"], [1], [])
    assert registry.has_forgotten


async def test_whatever_nobody_expects_ends_the_process_by_name() -> None:
    heard, _ = await run(Scripted(RuntimeError("a bug")))
    (halt,) = heard.halts
    assert str(halt) == f"{TOPIC}[0]: RuntimeError: a bug"


async def gathered(projector: Held, sizes: Sequence[int]) -> tuple[Heard, Pipeline]:
    """Two transactions under way, and behind them a batch of so many records of each further partition."""
    heard = Heard()
    pipeline = pipeline_of(projector, heard)
    for partition in range(2):
        await pipeline.submit(batch(claim_of(partition), 1))
        await until_in_hand(projector, partition + 1)
    for partition, records in enumerate(sizes, 2):
        await pipeline.submit(batch(claim_of(partition), records))
    return heard, pipeline


async def queued(projector: Held, heard: Heard) -> Pipeline:
    """One transaction under way, and behind it a batch of the same partition and one of another."""
    pipeline = pipeline_of(projector, heard)
    claim = claim_of(0)
    await pipeline.submit(batch(claim, 1))
    await until_in_hand(projector, 1)
    await pipeline.submit(batch(claim, 1, start=1))  # there is room for a second transaction, but not for this one
    for _ in range(50):  # turns of the loop: more than it would take to begin
        await asyncio.sleep(0)
    await pipeline.submit(batch(claim_of(1), 1))
    return pipeline


async def until_in_hand(projector: Held, transactions: int) -> None:
    async def are_in_hand() -> bool:
        return len(projector.transactions) >= transactions

    await until("the transactions", are_in_hand, seconds=5)


async def let_go(projector: Held, pipeline: Pipeline) -> None:
    projector.go.set()
    assert await pipeline.wait_idle(10)


async def submit_late(projector: Held, pipeline: Pipeline, late: RecordBatch) -> None:
    """Submit a batch that isn't taken before the transactions under way are let go."""
    waiting = asyncio.create_task(pipeline.submit(late))
    await asyncio.sleep(0)
    assert not waiting.done()
    projector.go.set()
    await waiting
    assert await pipeline.wait_idle(10)


async def test_batches_that_come_meanwhile_share_a_transaction() -> None:
    projector = Held()
    heard, pipeline = await gathered(projector, [10, 10, 10])
    await let_go(projector, pipeline)
    assert projector.transactions == [[0], [1], [2, 3, 4]]
    assert sorted(heard.applied_of) == [0, 1, 2, 3, 4]


async def test_a_batch_for_which_there_is_no_room_waits_for_the_next_transaction() -> None:
    projector = Held()
    _, pipeline = await gathered(projector, [50, 50 - 1])
    await submit_late(projector, pipeline, batch(claim_of(4), 2))
    assert projector.transactions == [[0], [1], [2, 3], [4]]


async def test_a_large_batch_has_a_transaction_of_its_own_and_nothing_more_is_taken_until_it_begins() -> None:
    projector = Held()
    heard, pipeline = await gathered(projector, [])
    await submit_late(projector, pipeline, batch(claim_of(2), SHARED))
    assert (projector.transactions, heard.applied_to) == ([[0], [1], [2]], [1, 1, SHARED])


async def test_batches_of_one_partition_become_one_and_keep_their_order() -> None:
    projector = Held()
    heard, pipeline = await gathered(projector, [])
    claim = claim_of(0)
    for start in (1, 11):
        await pipeline.submit(batch(claim, 10, start=start))
    await let_go(projector, pipeline)
    assert projector.transactions == [[0], [1], [0]]
    assert (sorted(heard.applied_to), heard.halts) == ([1, 1, 21], [])


async def test_the_time_that_a_batch_waits_for_room_counts_from_its_first_poll() -> None:
    projector = Held()
    _, pipeline = await gathered(projector, [])
    claim = claim_of(2)
    await pipeline.submit(replace(batch(claim, 1), polled_at=monotonic() - 1_000))
    await pipeline.submit(batch(claim, 1, start=1))
    await let_go(projector, pipeline)
    took = counted(pipeline, "sitelog_batch_seconds_sum")
    assert took is not None
    assert 1_000 <= took < 1_100


async def test_a_batch_whose_earlier_one_is_done_waits_for_nobody() -> None:
    projector = Held()
    heard = Heard()
    pipeline = pipeline_of(projector, heard)
    projector.go.set()
    claim = claim_of(0)
    for start in range(3):
        await pipeline.submit(batch(claim, 1, start=start))
        assert await pipeline.wait_idle(10)
    assert heard.applied_to == [1, 2, 3]


async def test_a_batch_of_the_next_claim_doesnt_mix_with_those_of_the_one_before() -> None:
    projector = Held()
    _, pipeline = await gathered(projector, [10])
    await submit_late(projector, pipeline, batch(claim_of(2), 10))
    assert projector.transactions == [[0], [1], [2], [2]]


async def test_a_group_waits_for_its_partitions_earlier_batches_and_gathers_meanwhile() -> None:
    projector = Held()
    pipeline = await queued(projector, Heard())
    await let_go(projector, pipeline)
    assert projector.transactions == [[0], [0, 1]]


async def test_large_values_are_a_full_transaction_too() -> None:
    projector = Held()
    _, pipeline = await gathered(projector, [])
    await submit_late(projector, pipeline, batch(claim_of(2), 2, bytes(SHARED_BYTES // 2)))
    assert projector.transactions == [[0], [1], [2]]


async def test_where_a_shared_transaction_fails_each_batch_has_its_own() -> None:
    projector = Held(together=asyncpg.NumericValueOutOfRangeError("integer out of range"))
    heard, pipeline = await gathered(projector, [10, 10])
    await let_go(projector, pipeline)
    assert projector.transactions == [[0], [1], [2, 3], [2], [3]]
    assert (sorted(heard.applied_of), heard.halts) == ([0, 1, 2, 3], [])


async def test_a_fenced_batch_keeps_those_in_its_transaction_from_nothing() -> None:
    projector = Held(of_2=Outcome("fenced"), of_3=Outcome("lost"))
    heard, pipeline = await gathered(projector, [10, 10, 10])
    await let_go(projector, pipeline)
    assert ([claim.partition for claim in heard.fenced], [claim.partition for claim in heard.reclaimed]) == ([2], [3])
    assert sorted(heard.applied_of) == [0, 1, 4]


async def test_a_claim_that_is_over_leaves_those_in_its_transaction_alone() -> None:
    projector = Held()
    heard, pipeline = await gathered(projector, [])
    claims = [claim_of(2), claim_of(3)]
    for claim in claims:
        await pipeline.submit(batch(claim, 10))
    claims[0].void = True
    await let_go(projector, pipeline)
    assert projector.transactions == [[0], [1], [3]]
    assert sorted(heard.applied_of) == [0, 1, 3]


async def test_what_nobody_expects_after_a_shared_transaction_ends_the_process_too() -> None:
    class Deaf(Heard):
        def applied(self, batch: RecordBatch) -> None:
            raise RuntimeError(f"a bug with {batch.partition}")

    projector = Held()
    heard = Deaf()
    pipeline = await queued(projector, heard)
    await let_go(projector, pipeline)
    assert projector.transactions == [[0], [0, 1]]
    assert [str(halt).partition(": ")[2] for halt in heard.halts] == [
        f"RuntimeError: a bug with {partition}" for partition in (0, 0, 1)
    ]


async def test_what_nobody_expects_around_all_of_a_groups_batches_ends_the_process_too() -> None:
    class Broken(NoSpans):
        def applying(self, batches: Collection[RecordBatch]) -> NoReturn:
            raise RuntimeError(f"a bug with {len(batches)}")

    heard = Heard()
    pipeline = pipeline_of(Held(), heard, spans=Broken())
    await pipeline.submit(batch(claim_of(0), 1))
    assert await pipeline.wait_idle(10)
    await asyncio.sleep(0)
    assert [str(halt) for halt in heard.halts] == [f"apply from {TOPIC}[0] on: RuntimeError: a bug with 1"]
