"""How far each claimed partition has come, and since when it hasn't: what /livez and the lag metrics say."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import inf
from time import monotonic, time

from sitelog.streams._batch import Place, RecordBatch


@dataclass(slots=True)
class PartitionProgress:
    """One partition: the next offset to apply, the end seen, and the monotonic time of the last progress.

    `behind_since` is the wall-clock time at which it was seen to be behind; where it wasn't seen level before, that at
    which the first event was appended that isn't applied, 0 until that is known.
    """

    applied: int
    highwater: int
    append_time_ms: int
    moved_at: float
    behind_since: float = 0.0


class Progress:
    """Progress by (topic, partition). `now` is a monotonic clock in seconds, `wall` one that others share.

    While anybody waits for something outside, nobody is stuck: those behind wait for it without having asked. Who was
    put off waits alone, and excuses nobody else.
    """

    def __init__(self, now: Callable[[], float] = monotonic, wall: Callable[[], float] = time) -> None:
        self._now = now
        self._wall = wall
        self.partitions: dict[Place, PartitionProgress] = {}
        self._failing: dict[Place, str] = {}
        self._put_off: dict[Place, str] = {}
        self._unanswered: str | None = None
        self._waited_until = -inf

    def seen(self, topic: str, partition: int, applied: int, highwater: int, oldest_ms: int | None = None) -> None:
        """Take note of a partition's end, and of when the first event was appended that was read of it.

        One that is new here, or was moved by another worker, starts its clock.
        """
        known = self.partitions.get((topic, partition))
        if known is None or known.applied < applied:
            self.partitions[topic, partition] = PartitionProgress(applied, highwater, 0, self._now())
            self.goes_on(topic, partition)
        else:
            if known.applied >= known.highwater:
                known.moved_at, known.behind_since = self._now(), self._wall()  # there was nothing to do until now
            known.highwater = max(known.highwater, highwater)
        known = self.partitions[topic, partition]
        if oldest_ms is not None and not known.append_time_ms and not known.behind_since:
            known.behind_since = oldest_ms / 1000

    def moved(self, batch: RecordBatch) -> None:
        """Take note that a batch is in Postgres."""
        self.partitions[batch.topic, batch.partition] = PartitionProgress(
            batch.end, max(batch.highwater, batch.end), batch.records[-1].timestamp, self._now()
        )
        self.goes_on(batch.topic, batch.partition)

    def moving(self, topic: str, partition: int) -> None:
        """Take note that a part of a batch is in Postgres."""
        known = self.partitions.get((topic, partition))
        if known is not None:
            known.moved_at = self._now()
        self.goes_on(topic, partition)

    def failing(self, topic: str, partition: int, why: str) -> None:
        """Take note that something outside is away: waiting for it is not being stuck."""
        if (topic, partition) in self.partitions:
            self._failing[topic, partition] = why

    def goes_on(self, topic: str, partition: int) -> None:
        """Take note that a partition waits for nobody outside any more; all that waited behind it have their time."""
        if self._failing.pop((topic, partition), None) is not None:
            self._waited_until = self._now()

    def put_off(self, topic: str, partition: int, why: str) -> None:
        """Take note that a partition waits by itself."""
        if (topic, partition) in self.partitions:
            self.goes_on(topic, partition)
            self._put_off[topic, partition] = why

    def reading(self, unanswered: str | None) -> None:
        """Take note of why Kafka doesn't answer, None where it does or isn't waited for."""
        if self._unanswered is not None and unanswered is None:
            self._waited_until = self._now()
        self._unanswered = unanswered

    def failures(self) -> list[str]:
        """Name the partitions that wait for something outside, and for what."""
        failing = sorted((self._failing | self._put_off).items())
        failures = [f"{topic}[{partition}]: {why}" for (topic, partition), why in failing]
        return failures if self._unanswered is None else [*failures, self._unanswered]

    def keep(self, claimed: AbstractSet[Place], put_off: AbstractSet[Place] = frozenset()) -> None:
        """Forget the partitions that are somebody else's now, and that those wait which are put off no more."""
        for partition in self.partitions.keys() - claimed - put_off:
            del self.partitions[partition]
            self.goes_on(*partition)
        for partition in self._put_off.keys() - put_off:
            del self._put_off[partition]
            if partition in self.partitions:
                self.partitions[partition].moved_at = self._now()

    def stuck(self, seconds: float) -> list[str]:
        """Name the partitions that have events and haven't moved for `seconds`, in which nobody waited outside."""
        if self._failing or self._unanswered is not None:
            return []
        now = self._now()
        return [
            f"{topic}[{partition}] at {p.applied} of {p.highwater} since {now - p.moved_at:.0f} s"
            for (topic, partition), p in sorted(self.partitions.items())
            if p.applied < p.highwater and now - max(p.moved_at, self._waited_until) > seconds
            if (topic, partition) not in self._put_off
        ]
