"""Looks at each claimed partition's end from time to time, so that lag and stuckness show without batches.

What Kafka has and nobody has read is asked for: where Kafka doesn't answer, the worker isn't stuck.
"""

from collections.abc import Iterator
from typing import Any, Final

from mode import Service

from sitelog.agents._progress import Progress
from sitelog.streams._batch import Claim
from sitelog.streams.app import BatchApp

LOOK_SECONDS: Final = 0.5
"""A look, another one, and the wait for Kafka's answer: they must fit into the least `stuck_after_seconds`, 5."""


class Watch(Service):
    """Keeps `progress` in step with the partitions that this worker has claimed."""

    def __init__(self, app: BatchApp, progress: Progress) -> None:
        super().__init__()
        self._app = app
        self._progress = progress
        self._unread: dict[Claim, int] = {}

    @Service.task
    async def _look(self) -> None:
        while not self.should_stop:
            await self.sleep(LOOK_SECONDS)
            consumer: Any = getattr(self._app, "_consumer", None)
            if consumer is not None:
                self._look_at(consumer)
                await self._look_at_put_off(consumer)
                self._progress.reading(await self._unanswered(consumer))

    def _look_at(self, consumer: Any) -> None:
        claims = list(consumer.claims.values())
        self._progress.keep({(claim.topic, claim.partition) for claim in claims}, set(map(tuple, consumer.put_offs())))
        for claim in claims:
            end = consumer.end_of(claim)
            if end is not None:
                self._progress.seen(claim.topic, claim.partition, claim.applied_offset, end, claim.oldest_ms)

    async def _look_at_put_off(self, consumer: Any) -> None:
        """Ask Kafka where partitions end that nobody fetches: their lag grows all the same."""
        put_off = consumer.put_offs()
        for (topic, partition), end in (await consumer.ends_of(put_off) if put_off else {}).items():
            known = self._progress.partitions.get((topic, partition))
            if known is not None:
                self._progress.seen(topic, partition, known.applied, end)

    async def _unanswered(self, consumer: Any) -> str | None:
        """Ask Kafka about what hasn't been read since the last look; return why it doesn't answer, if so."""
        before, self._unread = self._unread, {claim: claim.read_offset for claim in self._waiting(consumer)}
        standing = [claim for claim, offset in self._unread.items() if before.get(claim) == offset]
        return await consumer.unanswered(standing) if standing else None

    @staticmethod
    def _waiting(consumer: Any) -> Iterator[Claim]:
        """Yield the claims of which all that was read is applied, and Kafka has more."""
        for claim in list(consumer.claims.values()):
            end = consumer.end_of(claim)
            if end is not None and claim.applied_offset == claim.read_offset < end and not claim.fenced:
                yield claim
