"""What the pipeline's spans say: who was applied with whom, what failed, and who sent the events."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from sitelog.agents import _batch_spans
from sitelog.agents._batch_spans import LINKS_MAX, BatchSpans
from sitelog.agents._progress import Progress
from sitelog.projections._slice import Outcome, Slice
from sitelog.streams._batch import Claim, RecordBatch
from sitelog.streams._trace_headers import Sent
from sitelog.streams.codec import Codec
from sitelog.streams.errors import Halt
from sitelog.streams.examples import example
from sitelog.streams.settings import DatabaseSettings
from tests.partition import Record
from tests.pipelines import pipeline_around

TOPIC = "customer-sites-events"
VALUE = Codec().encode(example("site_created"))
APPLIED = Outcome("applied", events=1)
TRACE = "0af7651916cd43dd8448eb211c80319c"
PRIMARY = DatabaseSettings(host="localhost", database="sites", username="app_user")

Answer = Outcome | Exception


class Scripted:
    """A projector whose first transaction waits; each answers as it is told, by partition or all together."""

    def __init__(self, together: Exception | None = None, **answers: list[Answer]) -> None:
        self.go = asyncio.Event()
        self.begun = asyncio.Event()
        self._together = together
        self._answers = answers

    async def apply(self, connection: Any, parts: Sequence[Slice], **_: bool) -> list[Outcome]:
        async with connection.transaction():
            self.begun.set()
            await self.go.wait()
            if self._together is not None and len(parts) > 1:
                raise self._together
            return [self._answer(part) for part in parts]

    def _answer(self, part: Slice) -> Outcome:
        answers = self._answers.get(f"of_{part.partition}")
        answer = answers.pop(0) if answers else APPLIED
        if isinstance(answer, Exception):
            raise answer
        return answer


class Connection:
    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield


class Pool:
    @asynccontextmanager
    async def acquire(self, timeout: float) -> AsyncIterator[Connection]:  # noqa: ARG002, ASYNC109 - asyncpg's own
        yield Connection()


class Stage:
    """A pipeline that traces into memory."""

    def __init__(self, projector: Scripted) -> None:
        provider, self._exporter, progress = TracerProvider(), InMemorySpanExporter(), Progress()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.projector = projector
        self.halts: list[Halt] = []
        told = SimpleNamespace(
            applied=lambda _: None, fence=lambda _: None, reclaim=lambda _: None, halt=self.halts.append
        )
        self._pipeline = pipeline_around(
            projector,
            Codec(),
            pool=Pool(),
            consumer=told,
            progress=progress,
            spans=BatchSpans(provider.get_tracer("test"), group="sitelog-projector", database=PRIMARY),
        )

    async def apply(self, *batches: RecordBatch, first: RecordBatch | None = None) -> list[ReadableSpan]:
        """Apply batches together, behind a first one, and return the spans of those."""
        if first is not None:
            await self._pipeline.submit(first)
            await self.projector.begun.wait()
        for batch in batches:
            await self._pipeline.submit(batch)
        self.projector.go.set()
        assert await self._pipeline.wait_idle(10)
        spans = list(self._exporter.get_finished_spans())
        if first is not None:
            of_first = {span.context.trace_id for span in spans if attribute(span, "partition.id") == "0"}
            spans = [span for span in spans if span.context.trace_id not in of_first]
        return spans


def attribute(span: ReadableSpan, end: str) -> Any:
    return next((value for name, value in (span.attributes or {}).items() if name.endswith(end)), None)


def named(spans: Sequence[ReadableSpan], *beginnings: str) -> list[ReadableSpan]:
    return [span for span in spans if span.name.startswith(beginnings)]


def batch(partition: int, *headers: Sequence[tuple[str, Any]]) -> RecordBatch:
    records: Any = [Record(offset, 0, b"site-1", VALUE, tuple(of)) for offset, of in enumerate(headers)]
    claim = Claim(TOPIC, partition, epoch=7, read_offset=0, applied_offset=0)
    return RecordBatch(claim, 0, len(records), records, len(records))


def sent_by(number: int, *, flags: str = "01") -> list[tuple[str, bytes]]:
    return [("traceparent", f"00-{TRACE}-{number:016x}-{flags}".encode())]


def links_of(span: ReadableSpan) -> list[tuple[int, Any]]:
    return [(link.context.span_id, attribute(cast("Any", link), "offset")) for link in span.links]


async def test_batches_that_share_a_transaction_stand_side_by_side_with_it() -> None:
    spans = await Stage(Scripted()).apply(batch(1, sent_by(1)), batch(2, sent_by(2), sent_by(3)), first=batch(0, []))
    [together] = named(spans, "apply batches")
    assert (together.parent, attribute(together, "message_count"), attribute(together, "batches")) == (None, 3, 2)
    processes, [transaction] = named(spans, "process"), named(spans, "transaction")
    assert [links_of(span) for span in processes] == [[(1, 0)], [(2, 0), (3, 1)]]
    assert {span.parent and span.parent.span_id for span in (*processes, transaction)} == {together.context.span_id}
    assert attribute(transaction, "slices") == (f"{TOPIC}[1] 0-0", f"{TOPIC}[2] 0-1")
    assert [span.parent and span.parent.span_id for span in named(spans, "decode")] == [
        span.context.span_id for span in processes
    ]
    assert len(named(spans, "COMMIT")) == 1


async def test_where_they_cant_share_it_each_has_a_transaction_of_its_own_below_it() -> None:
    projector = Scripted(asyncpg.NumericValueOutOfRangeError("secret value out of range"))
    spans = await Stage(projector).apply(batch(1, []), batch(2, []), first=batch(0, []))
    failed, *alone = sorted(named(spans, "transaction"), key=lambda span: span.start_time or 0)
    assert (failed.status.status_code, attribute(failed, "error.type")) == (StatusCode.ERROR, "22003")
    assert {span.parent and span.parent.span_id for span in alone} == {
        span.context.span_id for span in named(spans, "process")
    }
    assert [span.name for span in named(spans, "ROLLBACK", "COMMIT")] == ["ROLLBACK sites", *["COMMIT sites"] * 2]
    assert "secret" not in "".join(span.to_json() for span in spans)


async def test_a_fenced_batch_is_an_error_and_those_beside_it_are_none() -> None:
    spans = await Stage(Scripted(of_2=[Outcome("fenced")])).apply(batch(1, []), batch(2, []), first=batch(0, []))
    applied, fenced = named(spans, "process")
    assert (attribute(applied, "verdict"), applied.status.status_code) == ("applied", StatusCode.UNSET)
    assert (attribute(fenced, "verdict"), fenced.status.status_code) == ("fenced", StatusCode.ERROR)


async def test_what_ends_the_process_is_named_at_its_batch_without_its_message() -> None:
    stage = Stage(Scripted(of_1=[RuntimeError("a secret")]))
    spans = await stage.apply(batch(1, []))
    [process] = named(spans, "process")
    assert len(stage.halts) == 1
    assert (process.status.status_code, attribute(process, "error.type")) == (StatusCode.ERROR, "RuntimeError")
    assert "a secret" not in process.to_json()


async def test_each_retry_is_an_event_of_its_batch() -> None:
    spans = await Stage(Scripted(of_1=[ConnectionRefusedError(), APPLIED])).apply(batch(1, []))
    [process] = named(spans, "process")
    assert [(event.name, dict(event.attributes or {})) for event in process.events] == [
        ("retry", {"sitelog.retry.of": "database"})
    ]
    assert [attribute(span, "error.type") for span in named(spans, "transaction")] == ["ConnectionRefusedError", None]


async def test_a_claim_that_is_over_is_no_error() -> None:
    over = batch(1, [])
    over.claim.void = True
    [process] = named(await Stage(Scripted()).apply(over), "process")
    assert (attribute(process, "verdict"), process.status.status_code) == ("dropped", StatusCode.UNSET)


async def test_a_lone_event_goes_on_in_its_producers_trace() -> None:
    [process] = named(await Stage(Scripted()).apply(batch(1, sent_by(5))), "process")
    assert process.parent is not None
    assert (f"{process.context.trace_id:032x}", process.parent.span_id) == (TRACE, 5)


async def test_an_event_among_others_is_only_linked() -> None:
    [process] = named(await Stage(Scripted()).apply(batch(1, sent_by(5), [])), "process")
    assert (process.parent, links_of(process)) == (None, [(5, 0)])


async def test_the_number_of_links_is_bounded_and_the_same_producer_is_linked_once() -> None:
    many = [sent_by(number) for number in range(1, 1_000)]
    [process] = named(await Stage(Scripted()).apply(batch(1, *many)), "process")
    assert [span for span, _ in links_of(process)] == list(range(1, LINKS_MAX + 1))
    [process] = named(await Stage(Scripted()).apply(batch(1, *[sent_by(3)] * 5)), "process")
    assert links_of(process) == [(3, 0)]


async def test_no_more_headers_are_read_than_could_be_linked_and_the_same_only_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[Sent] = []
    monkeypatch.setattr(_batch_spans, "producer_of", read.append)
    foreign = [[("traceparent", f"{number:055}1".encode())] for number in range(1_000)]
    await Stage(Scripted()).apply(batch(1, *[sent_by(3)] * 5, *foreign))
    assert len(read) == LINKS_MAX
    assert read.count((sent_by(3)[0][1], None)) == 1


def test_what_cant_be_read_of_a_records_headers_isnt_logged_for_each() -> None:
    code = (
        "from sitelog.agents._logging import configure; configure('json', 'debug');"
        "from sitelog.streams._trace_headers import producer_of;"
        f"found = producer_of(({sent_by(1)[0][1]!r}, b'foreign bytes')); assert found, found;"
        "assert producer_of((b'0' * 600 + b'1', None)) is None"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", None)],
        [("traceparent", b"")],
        [("traceparent", b"\xff" * 55)],
        [("traceparent", b"00-" + b"0" * 32 + b"-0000000000000005-01")],
        [("tracestate", b"a=b")],
        [(None, None)],
        sent_by(5, flags="00"),
    ],
)
async def test_headers_that_name_no_recorded_producer_cost_nothing_but_the_link(headers: Any) -> None:
    stage = Stage(Scripted())
    [process] = named(await stage.apply(batch(1, headers)), "process")
    assert (process.links, attribute(process, "verdict"), stage.halts) == ((), "applied", [])


async def test_trace_headers_that_can_not_even_be_read_cost_nothing_but_the_link() -> None:
    [process] = named(await Stage(Scripted()).apply(batch(1, cast("Any", [("traceparent",)]))), "process")
    assert (process.links, attribute(process, "verdict")) == ((), "applied")


async def test_of_several_contexts_the_last_one_counts_and_its_state_comes_along() -> None:
    headers = [*sent_by(1), ("tracestate", b"vendor=7"), ("other", b"x"), *sent_by(2)]
    [process] = named(await Stage(Scripted()).apply(batch(1, headers)), "process")
    [link] = process.links
    assert (link.context.span_id, link.context.trace_state.get("vendor")) == (2, "7")
