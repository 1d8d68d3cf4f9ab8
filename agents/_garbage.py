"""Collects what only cycles keep: each connection to the health server leaves a kilobyte of them."""

import gc
from typing import Final

from mode import Service

COLLECT_SECONDS: Final = 300.0


class Garbage(Service):
    """Collects now and then: the number of objects alone says so too late where no events come.

    What was imported is frozen: the worker stands still for a millisecond without events, for 15 in their midst.
    """

    @Service.task
    async def _collect(self) -> None:
        while not self.should_stop:
            await self.sleep(COLLECT_SECONDS)
            gc.collect()
