"""The worker's side of a trace: what becomes of each batch, linked to those who sent its events."""

import logging
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import islice
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
    use_span,
)

from sitelog.agents._spans import Acquired
from sitelog.agents._traced_connection import TracedConnection
from sitelog.projections._slice import Outcome, Slice
from sitelog.streams._batch import RecordBatch
from sitelog.streams._span import mark_failed, span_of_block
from sitelog.streams._trace_headers import Sent, producer_of, recorded_in
from sitelog.streams.settings import DatabaseSettings

LINKS_MAX: Final = 128
"""Links of one span, unless OTEL_SPAN_LINK_COUNT_LIMIT says otherwise: the SDK keeps no more either."""

NOT_APPLIED: Final = ("fenced", "lost")

log = logging.getLogger("sitelog.tracing")


class BatchSpans:
    """Makes spans for one consumer, which is `group` to Kafka.

    ```
    apply batches                      only where several batches may share a transaction
    ├─ process customer-sites-events   one for each batch, with links to its events' producers
    │  └─ decode
    └─ transaction sites               below `process` where a batch has one of its own
       └─ COMMIT sites             not there where one statement writes few events
    ```
    """

    def __init__(self, tracer: Tracer, *, group: str, database: DatabaseSettings) -> None:
        self._tracer = tracer
        self._messaging = {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.consumer.group.name": group,
        }
        self._database: Mapping[str, str | int] = {
            "db.system.name": "postgresql",
            "db.namespace": database.database,
            "server.address": database.host,
            "server.port": database.port,
        }
        self._links_max = SpanLimits().max_links or LINKS_MAX
        self._batches: dict[RecordBatch, Span] = {}

    @contextmanager
    def applying(self, batches: Collection[RecordBatch]) -> Iterator[None]:
        """In this block happens all that becomes of batches that may share a transaction."""
        common = self._begin_together(batches) if len(batches) > 1 else None
        for batch in batches:
            self._batches[batch] = self._begin(batch, common)
        try:
            if common is None:
                yield
            else:
                with use_span(common, record_exception=False, set_status_on_exception=False):
                    yield
        finally:
            for batch in batches:
                span = self._batches.pop(batch)
                # Neither settled nor failed: its claim is over, and the next one reads it again.
                if span.is_recording():
                    span.set_attribute("sitelog.verdict", "dropped")
                    span.end()
            if common is not None:
                common.end()

    @contextmanager
    def decoding(self, batch: RecordBatch) -> Iterator[None]:
        """In this block one of them is decoded."""
        context = set_span_in_context(self._batches[batch])
        with self._marking(batch), span_of_block(self._tracer, "decode", context=context):
            yield

    @contextmanager
    def alone(self, batch: RecordBatch) -> Iterator[None]:
        """In this block one of them is applied in transactions of its own."""
        span = self._batches[batch]
        with self._marking(batch), use_span(span, record_exception=False, set_status_on_exception=False):
            yield

    @asynccontextmanager
    async def transaction(self, acquired: Acquired, parts: Sequence[Slice]) -> AsyncIterator[TracedConnection]:
        """Return a connection to apply these in one transaction; waiting for the connection is a part of the span."""
        attributes: dict[str, Any] = {
            **self._database,
            "db.operation.name": "transaction",
            "sitelog.slices": [f"{part.topic}[{part.partition}] {part.start}-{part.end - 1}" for part in parts],
        }
        name = f"transaction {self._database['db.namespace']}"
        with span_of_block(self._tracer, name, kind=SpanKind.CLIENT, attributes=attributes):
            async with acquired as connection:
                yield TracedConnection(connection, self._tracer, self._database)

    def retrying(self, of: str) -> None:
        """Take note that the same will be tried again, because of something outside."""
        get_current_span().add_event("retry", {"sitelog.retry.of": of})

    def settled(self, batch: RecordBatch, outcome: Outcome) -> None:
        """Take note of what became of a batch."""
        span = self._batches[batch]
        span.set_attributes(
            {
                "sitelog.verdict": outcome.verdict,
                "sitelog.events": outcome.events,
                "sitelog.duplicates": outcome.duplicates,
                "sitelog.parked": outcome.parked,
                "sitelog.waiting": outcome.waiting,
                "sitelog.conflicts": outcome.conflicts,
            }
        )
        if outcome.verdict in NOT_APPLIED:
            span.set_attribute("error.type", outcome.verdict)
            span.set_status(Status(StatusCode.ERROR, outcome.verdict))
        span.end()

    def _begin_together(self, batches: Collection[RecordBatch]) -> Span:
        attributes: dict[str, Any] = {
            **self._messaging,
            "messaging.batch.message_count": sum(len(batch.records) for batch in batches),
            "sitelog.batches": len(batches),
        }
        return self._tracer.start_span("apply batches", context=Context(), attributes=attributes)

    def _begin(self, batch: RecordBatch, common: Span | None) -> Span:
        producers = self._producers(batch)
        context = Context()
        if common is not None:
            context = set_span_in_context(common, context)
        elif len(batch.records) == 1 and producers:
            # A single event: nobody else's trace would be hidden behind its own.
            context = set_span_in_context(NonRecordingSpan(producers[0][0]), context)
        attributes: dict[str, Any] = {
            **self._messaging,
            "messaging.destination.name": batch.topic,
            "messaging.destination.partition.id": str(batch.partition),
            "messaging.batch.message_count": len(batch.records),
            "sitelog.offset.first": batch.start,
            "sitelog.offset.last": batch.end - 1,
        }
        links = [Link(producer, {"messaging.kafka.offset": offset}) for producer, offset in producers]
        return self._tracer.start_span(
            f"process {batch.topic}", context=context, kind=SpanKind.CONSUMER, attributes=attributes, links=links
        )

    def _producers(self, batch: RecordBatch) -> list[tuple[SpanContext, int]]:
        """Return by whom its events were sent, as many as there may be links, with the offset of each one's first."""
        try:
            # Reading them takes its time, also those that can't be read: no more are tried than could be linked.
            recorded = islice(_recorded(batch), self._links_max)
            return [(producer, at) for sent, at in recorded if (producer := producer_of(sent)) is not None]
        except Exception:
            # Headers are whatever anybody has sent: they may cost the links, and never the batch.
            log.exception("%s[%d]: trace headers from offset %d on", batch.topic, batch.partition, batch.start)
            return []

    @contextmanager
    def _marking(self, batch: RecordBatch) -> Iterator[None]:
        """Let an error that ends a batch be seen at the batch itself, at once: it may end the process."""
        try:
            yield
        except BaseException as error:
            span = self._batches[batch]
            mark_failed(span, error)
            span.end()
            raise


def _recorded(batch: RecordBatch) -> Iterator[tuple[Sent, int]]:
    """Yield how events were sent, as far as somebody recorded it, and their offsets; the same span counts once."""
    known: set[bytes] = set()
    for record in batch.records:
        if record.headers and (sent := recorded_in(record.headers)) is not None and sent[0] not in known:
            known.add(sent[0])
            yield sent, record.offset
