"""A worker's memory: what only cycles keep goes, however few objects are made meanwhile."""

import gc
import weakref

from sitelog.agents import _garbage
from sitelog.agents._garbage import Garbage
from tests.until import until


class Cycle:
    """Refers to itself, as a connection and its handler do to each other."""

    def __init__(self):
        self.itself = self


async def test_garbage_goes_although_no_number_of_objects_asks_for_it(monkeypatch):
    monkeypatch.setattr(_garbage, "COLLECT_SECONDS", 0.05)
    gc.disable()
    try:
        async with Garbage():
            left = weakref.ref(Cycle())
            assert left() is not None
            await until("its end", lambda: gone(left))
    finally:
        gc.enable()


async def gone(left):
    return left() is None
