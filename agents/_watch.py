"""Looks at each claimed partition's end from time to time, so that lag and stuckness show without batches."""

from typing import Any, Final

from mode import Service

from sitelog.agents._progress import Progress
from sitelog.streams.app import BatchApp

LOOK_SECONDS: Final = 0.5


class Watch(Service):
    """Keeps `progress` in step with the partitions that this worker has claimed."""

    def __init__(self, app: BatchApp, progress: Progress) -> None:
        super().__init__()
        self._app = app
        self._progress = progress

    @Service.task
    async def _look(self) -> None:
        while not self.should_stop:
            await self.sleep(LOOK_SECONDS)
            consumer: Any = getattr(self._app, "_consumer", None)
            if consumer is not None:
                self._look_at(consumer)

    def _look_at(self, consumer: Any) -> None:
        claims = list(consumer.claims.values())
        self._progress.keep({(claim.topic, claim.partition) for claim in claims})
        for claim in claims:
            end = consumer.end_of(claim)
            if end is not None:
                self._progress.seen(claim.topic, claim.partition, claim.applied_offset, end)
