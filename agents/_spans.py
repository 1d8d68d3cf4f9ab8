"""What the pipeline tells about its work as it goes, for traces; and the one that nobody listens to."""

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import Any, Final, Protocol

from sitelog.projections._slice import Outcome, Slice
from sitelog.streams._batch import RecordBatch

Acquired = AbstractAsyncContextManager[Any]
"""A connection of the pool, for a block."""


class Spans(Protocol):
    """Each method is called for a batch or a transaction, never for an event."""

    def applying(self, batches: Collection[RecordBatch]) -> AbstractContextManager[object]:
        """In this block happens all that becomes of batches that may share a transaction."""

    def decoding(self, batch: RecordBatch) -> AbstractContextManager[object]:
        """In this block one of them is decoded."""

    def alone(self, batch: RecordBatch) -> AbstractContextManager[object]:
        """In this block one of them is applied in transactions of its own."""

    def transaction(self, acquired: Acquired, parts: Sequence[Slice]) -> Acquired:
        """Return a connection to apply these in one transaction."""

    def retrying(self, of: str) -> None:
        """Take note that the same will be tried again, because of something outside."""

    def settled(self, batch: RecordBatch, outcome: Outcome) -> None:
        """Take note of what became of a batch."""


class NoSpans:
    """Tracing is off."""

    _NOTHING: Final = nullcontext()

    def applying(self, _: Collection[RecordBatch]) -> AbstractContextManager[object]:
        """Do nothing."""
        return self._NOTHING

    def decoding(self, _: RecordBatch) -> AbstractContextManager[object]:
        """Do nothing."""
        return self._NOTHING

    def alone(self, _: RecordBatch) -> AbstractContextManager[object]:
        """Do nothing."""
        return self._NOTHING

    def transaction(self, acquired: Acquired, _: Sequence[Slice]) -> Acquired:
        """Return the connection as it is."""
        return acquired

    def retrying(self, _: str) -> None:
        """Do nothing."""

    def settled(self, _: RecordBatch, __: Outcome) -> None:
        """Do nothing."""


NO_SPANS: Final = NoSpans()
