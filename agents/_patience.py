"""Waiting for what is away: longer each time, within bounds, and so that metrics and spans tell of it."""

import asyncio
from typing import Final

from sitelog.agents._metrics import Metrics
from sitelog.agents._spans import Spans

SECONDS_MIN: Final = 0.05
SECONDS_MAX: Final = 1.0


class Patience:
    """How long to wait before the next try of one thing: `seconds`."""

    def __init__(self, metrics: Metrics, spans: Spans) -> None:
        self._metrics = metrics
        self._spans = spans
        self.seconds = SECONDS_MIN

    async def wait(self, of: str) -> None:
        """Wait for `of`, as metrics call it: twice as long as the last time."""
        self._metrics.retried(of)
        self._spans.retrying(of)
        await asyncio.sleep(self.seconds)
        self.seconds = min(self.seconds * 2, SECONDS_MAX)

    def renew(self) -> None:
        """Begin anew: it has worked."""
        self.seconds = SECONDS_MIN
