"""Asks Postgres how many entities are stopped: parked events stay, and so must the number that tells of them."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import asyncpg
from mode import Service

from sitelog.agents._metrics import Metrics
from sitelog.projections._look_positions import stopped_entities
from sitelog.streams.errors import reason_of

log = logging.getLogger("sitelog.stopped")

LOOK_SECONDS: Final = 10.0
LOOK_SECONDS_MAX: Final = 2.0


class StoppedEntities(Service):
    """Keeps the metric in step with `sitelog.consumer_position`, for every partition of the consumer.

    Each worker tells of all of them, so that the number outlives a rebalance: take the largest. While Postgres is
    away the last one stands.
    """

    def __init__(self, consumer: str, pool: Callable[[], asyncpg.Pool], metrics: Metrics) -> None:
        super().__init__()
        self._consumer = consumer
        self._pool = pool
        self._metrics = metrics

    @Service.task
    async def _look(self) -> None:
        while not self.should_stop:
            await self.look()
            await self.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Ask once; what goes wrong is logged only."""
        try:
            async with asyncio.timeout(LOOK_SECONDS_MAX):
                self._metrics.stopped(await stopped_entities(self._pool(), self._consumer))
        except Exception as error:  # noqa: BLE001 - no number is worth a worker
            log.info("stopped entities not counted: %s", reason_of(error))
