"""The producer's side of a trace: a span for each event, from the append to Kafka's acknowledgement."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka.structs import RecordMetadata
from opentelemetry.trace import Span, SpanKind, Tracer

from sitelog.streams._event import Event
from sitelog.streams._span import mark_failed
from sitelog.streams._trace_headers import Headers, headers_of

Acknowledgement = asyncio.Future[RecordMetadata]
Send = Callable[[Headers], Awaitable[Acknowledgement]]


class AppendSpans:
    """Gives each event a PRODUCER span, a child of the caller's current one, and its context as headers."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def send(self, event: Event, key: bytes, send: Send) -> Acknowledgement:
        """Send an event with its span's headers; the span ends with the acknowledgement, or with what went wrong."""
        span = self._tracer.start_span(f"send {event.topic}", kind=SpanKind.PRODUCER, attributes=_described(event, key))
        try:
            future = await send(headers_of(span))
        except BaseException as error:
            mark_failed(span, error)
            span.end()
            raise
        future.add_done_callback(lambda acknowledged: _end(span, acknowledged))
        return future


def _described(event: Event, key: bytes) -> dict[str, Any]:
    """Name the event, and tell nothing of what is in it."""
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": event.topic,
        "messaging.message.id": event.event_id,
        "messaging.kafka.message.key": key.decode(),
        "sitelog.event_type": event.event_type,
    }


def _end(span: Span, acknowledged: Acknowledgement) -> None:
    error = asyncio.CancelledError() if acknowledged.cancelled() else acknowledged.exception()
    if error is not None:
        mark_failed(span, error)
    else:
        place = acknowledged.result()
        span.set_attribute("messaging.destination.partition.id", str(place.partition))
        span.set_attribute("messaging.kafka.offset", place.offset)
    span.end()
