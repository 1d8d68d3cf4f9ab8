"""A Postgres connection that shows when a transaction ends, and nothing of what is in it."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from opentelemetry.trace import SpanKind, Tracer

from sitelog.streams._span import span_of_block


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
        with span_of_block(
            self._tracer, f"{name} {self._attributes['db.namespace']}", kind=SpanKind.CLIENT, attributes=attributes
        ):
            await self._transaction.__aexit__(kind, error, trace)
