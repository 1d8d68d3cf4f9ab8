"""What travels from the transport to the transaction: a claimed partition, and the records read under that claim."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, Protocol, Self

Place = tuple[str, int]
"""A topic, and the number of one of its partitions."""

Wait = Callable[[], Coroutine[Any, Any, None]]
"""Returns when what is waited for is there."""


@dataclass(slots=True)
class Position:
    """Where a consumer stands in one partition, as Postgres has it after a claim.

    `anchor` is the CRC-32 of the value of the record at `next_offset - 1`, None where nothing was applied yet:
    it tells a topic that was created again from the one that was read before.
    """

    next_offset: int
    epoch: int
    anchor: int | None


@dataclass(slots=True, eq=False)
class Claim:
    """The right to apply one partition, until the next rebalance or until somebody claims it with a higher epoch.

    Records up to `read_offset` have been handed over, and those up to `applied_offset` are in Postgres.
    `void` claims are over: their batches are dropped unapplied, and are read again under the next claim.
    `fenced` claims have met a higher epoch in Postgres: nothing more is read until a rebalance.
    `leader_epoch` is that of the broker under which the last record was written that was read, `oldest_ms` when the
    first one was appended.
    """

    topic: str
    partition: int
    epoch: int
    read_offset: int
    applied_offset: int
    void: bool = False
    fenced: bool = False
    leader_epoch: int | None = None
    oldest_ms: int | None = None


class Record(Protocol):
    """The part of aiokafka's ConsumerRecord that Sitelog reads; `timestamp` is in milliseconds since 1970."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(slots=True, eq=False)
class RecordBatch:
    """Consecutive records `[start, end)` of one partition, fetched in one poll, non-empty and without a hole.

    `polled_at` are monotonic seconds.
    """

    claim: Claim
    start: int
    end: int
    records: Sequence[Record] = field(repr=False)
    highwater: int
    polled_at: float = field(default_factory=monotonic)

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self.claim.topic

    @property
    def partition(self) -> int:
        """The partition's number."""
        return self.claim.partition

    @property
    def place(self) -> Place:
        """Topic and partition."""
        return self.claim.topic, self.claim.partition

    @property
    def bytes(self) -> int:
        """How many bytes the records' values have."""
        return sum(len(record.value or b"") for record in self.records)

    def followed_by(self, batch: Self) -> Self:
        """Return this batch and the next one, of the same claim, as one."""
        return replace(self, end=batch.end, records=[*self.records, *batch.records], highwater=batch.highwater)


class Positions(Protocol):
    """Where positions are kept; Postgres is their only truth."""

    async def claim(self, topic: str, partition: int, generation: int, *, force: bool) -> Position | None:
        """Raise the epoch and return the position, or None while a newer Kafka generation holds the partition.

        `force` ignores the generation, for a group that was created anew. Raises Retry while Postgres is away.
        """


class Sink(Protocol):
    """Who applies batches."""

    async def wait_idle(self, timeout_seconds: float) -> bool:
        """Wait until no batch is being applied; False when that took longer."""
