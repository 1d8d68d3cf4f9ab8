"""The configuration's `worker` and `append`: how much is in flight, and how long anything may take."""

from collections.abc import Iterable
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from sitelog.streams._section import Host, Problem, Section, raise_if_any

_MIB = 1_048_576
OVERHEAD_BYTES: Final = 65_536
"""Room for key, headers and batch around the largest event."""


class WorkerSettings(Section):
    """A worker's limits. Seconds, unless the name says otherwise."""

    # Records of one poll at most, or of what was put aside and goes on in one transaction: the more of them meet in
    # one row, the fewer writes; a redo costs as many.
    batch_records_max: Annotated[int, Field(ge=1, le=100_000)] = 16_000
    # Bytes of the same, as they are once decompressed; all that a worker holds at once is a few times that.
    batch_bytes_max: Annotated[int, Field(ge=65_536, le=64 * _MIB)] = 5 * _MIB // 2
    # Transactions at once, of different partitions; the next batches stay in Kafka. It is the back-pressure.
    batches_in_flight_max: Annotated[int, Field(ge=1, le=64)] = 2
    # Records of several partitions' batches that share a transaction, at most; with 1 each batch has its own.
    shared_records_max: Annotated[int, Field(ge=1, le=100_000)] = 2_000
    # How long a fetch may wait for the first byte, in milliseconds: it delays what shares its connection.
    fetch_wait_ms_max: Annotated[int, Field(ge=10, le=5_000)] = 500

    # Until a silent worker's partitions go to others: all of the fail-over. Brokers refuse below 6.
    session_timeout_seconds: Annotated[float, Field(ge=6, le=300)] = 10
    # Three beats and more must fit into a session, so that a lost one costs nothing.
    heartbeat_interval_seconds: Annotated[float, Field(ge=0.5, le=60)] = 2
    # How long the group waits for its slowest member; longer than a drain.
    rebalance_timeout_seconds: Annotated[float, Field(ge=6, le=600)] = 20
    # Until batches in flight are given up when partitions are taken away; the fence keeps them harmless.
    drain_seconds: Annotated[float, Field(ge=1, le=300)] = 12
    # One request to Kafka. Joining the group is one, and a broker may hold it until the rebalance timeout: cut off
    # before, it never joins.
    request_timeout_seconds: Annotated[float, Field(ge=6, le=600)] = 30
    # How old a worker's knowledge of its topics may be: added partitions, or a topic made again, end it so soon.
    metadata_max_age_seconds: Annotated[float, Field(ge=1, le=300)] = 30
    # A name that survives a restart (a pod's) makes it one without a rebalance: 3 s instead of 10 s.
    # It must be unique. None is a member that leaves when it stops.
    instance_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")] | None = None

    # How long a claim waits for a newer generation of its group before it takes the partition anyway.
    claim_grace_seconds: Annotated[float, Field(ge=1, le=600)] = 20
    # A fenced worker without a rebalance for so long isn't in the group: it ends, and is started again.
    fence_grace_seconds: Annotated[float, Field(ge=5, le=3_600)] = 60

    # Postgres ends what a frozen worker holds: the locks go before its successor needs them. Less than
    # session_timeout_seconds and transaction_timeout_seconds.
    idle_in_transaction_timeout_seconds: Annotated[float, Field(ge=1, le=300)] = 5
    # Until Postgres ends a statement that waits for a lock, and all of it is tried again; less than the next one.
    lock_timeout_seconds: Annotated[float, Field(ge=1, le=300)] = 8
    # Until Postgres ends a statement; 5 s later it is given up, even if Postgres doesn't answer. Less than the next
    # one.
    statement_timeout_seconds: Annotated[float, Field(ge=1, le=600)] = 15
    # Until Postgres ends a transaction, however busy it is: from Postgres 17 on. Older ones don't know it; it must be
    # more than the statement's all the same.
    transaction_timeout_seconds: Annotated[float, Field(ge=1, le=600)] = 20

    # A changed field that somebody else has changed meanwhile is taken, or stays as it is; recorded either way.
    conflict_policy: Literal["last_write_wins", "reject"] = "last_write_wins"

    # Health and metrics; only this machine, as they have no password.
    web_host: Host = "127.0.0.1"
    # Where they are; 0 takes any free port, and the log says which.
    web_port: Annotated[int, Field(ge=0, le=65_535)] = 8_080
    # No progress for so long, though there are events: not live any more, so that it is started again.
    stuck_after_seconds: Annotated[float, Field(ge=5, le=3_600)] = 60
    # From SIGTERM until the process ends, come what may: below the 30 s of most supervisors.
    shutdown_seconds: Annotated[float, Field(ge=1, le=300)] = 10

    @property
    def held_seconds_max(self) -> float:
        """The shortest time after which Postgres ends a transaction, or a part of it."""
        return min(
            self.idle_in_transaction_timeout_seconds, self.statement_timeout_seconds, self.transaction_timeout_seconds
        )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        raise_if_any(list(self._problems()))
        return self

    def _problems(self) -> Iterable[Problem]:
        session, rebalance = self.session_timeout_seconds, self.rebalance_timeout_seconds
        if self.heartbeat_interval_seconds * 3 > session:
            yield (
                ("heartbeat_interval_seconds",),
                (
                    f"expected at most a third of session_timeout_seconds ({session:g}), "
                    f"got {self.heartbeat_interval_seconds:g}"
                ),
            )
        if self.request_timeout_seconds < session:
            yield (
                ("request_timeout_seconds",),
                f"expected at least session_timeout_seconds ({session:g}), got {self.request_timeout_seconds:g}",
            )
        if self.request_timeout_seconds <= rebalance:
            yield (
                ("request_timeout_seconds",),
                f"expected more than rebalance_timeout_seconds ({rebalance:g}), got {self.request_timeout_seconds:g}",
            )
        if rebalance <= self.drain_seconds:
            yield (
                ("rebalance_timeout_seconds",),
                f"expected more than drain_seconds ({self.drain_seconds:g}), got {rebalance:g}",
            )
        yield from self._not_less("idle_in_transaction_timeout_seconds", "session_timeout_seconds")
        # Postgres looks at the shorter one alone: the other would never be heard of.
        yield from self._not_less("lock_timeout_seconds", "statement_timeout_seconds")
        yield from self._not_less("statement_timeout_seconds", "transaction_timeout_seconds")
        yield from self._not_less("idle_in_transaction_timeout_seconds", "transaction_timeout_seconds")

    def _not_less(self, field: str, limit: str) -> Iterable[Problem]:
        value, most = getattr(self, field), getattr(self, limit)
        if value >= most:
            yield (field,), f"expected less than {limit} ({most:g}), got {value:g}"


class AppendSettings(Section):
    """A producer's limits."""

    # Milliseconds to wait for more events before sending: a batch, at a cost that nobody sees. Less than
    # delivery_timeout_seconds.
    linger_ms: Annotated[int, Field(ge=0, le=5_000)] = 5
    # Bytes of one partition's batch; larger ones compress no better. Topics must take as much: see event_bytes_max.
    batch_bytes: Annotated[int, Field(ge=1_024, le=8 * _MIB)] = 262_144
    # Events sent and not yet acknowledged; the next append waits. It is the back-pressure.
    in_flight_max: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    # Until an event that no broker acknowledges is an error. Kafka's own idempotence covers the retries.
    delivery_timeout_seconds: Annotated[float, Field(ge=1, le=600)] = 30
    # Bytes of one encoded event with its key. Larger things belong elsewhere, with a link here. A topic's
    # max.message.bytes must be 65,536 more than the larger of this and batch_bytes, for headers and batch: that is more
    # than Kafka's own default, which takes 983,040. Topics that are there already are looked at by `sitelog topics
    # check`.
    event_bytes_max: Annotated[int, Field(ge=1_024, le=16 * _MIB)] = _MIB

    @property
    def sent_bytes_max(self) -> int:
        """The bytes of the largest batch: of one large event, or of several."""
        return max(self.event_bytes_max, self.batch_bytes)

    @property
    def message_bytes_max(self) -> int:
        """The same with all that is around it, so that a broker takes what append accepts."""
        return self.sent_bytes_max + OVERHEAD_BYTES

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.linger_ms >= self.delivery_timeout_seconds * 1_000:
            seconds = self.delivery_timeout_seconds
            raise_if_any(
                [(("linger_ms",), f"expected less than delivery_timeout_seconds ({seconds:g} s), got {self.linger_ms}")]
            )
        return self
