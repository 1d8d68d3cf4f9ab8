"""A Postgres connection that shows when a transaction ends, and nothing of what is in it."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer


class TracedConnection:
    """An asyncpg connection whose transactions have a span for their COMMIT or ROLLBACK."""

    def __init__(self, connection: Any, tracer: Tracer, attributes: Mapping[str, str | int]) -> None:
        self._connection = connection
        self._tracer = tracer
        self._attributes = attributes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def transaction(self) -> "TracedTransaction":
        """Begin a transaction with the block."""
        return TracedTransaction(self._connection.transaction(), self._tracer, self._attributes)


class TracedTransaction:
    """One transaction of asyncpg."""

    def __init__(self, transaction: Any, tracer: Tracer, attributes: Mapping[str, str | int]) -> None:
        self._transaction = transaction
        self._tracer = tracer
        self._attributes = attributes

    async def __aenter__(self) -> None:
        await self._transaction.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        name = "COMMIT" if kind is None else "ROLLBACK"
        attributes = {**self._attributes, "db.operation.name": name}
        with self._tracer.start_as_current_span(
            f"{name} {self._attributes['db.namespace']}",
            kind=SpanKind.CLIENT,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                await self._transaction.__aexit__(kind, error, trace)
            except BaseException as failed:
                mark_failed(span, failed)
                raise


def mark_failed(span: Span, error: BaseException) -> None:
    """Name an error by its SQLSTATE or its class: its message may have values in it."""
    state: str | None = getattr(error, "sqlstate", None)
    span.set_attribute("error.type", state or type(error).__name__)
    if state:
        span.set_attribute("db.response.status_code", state)
    span.set_status(Status(StatusCode.ERROR, type(error).__name__))
