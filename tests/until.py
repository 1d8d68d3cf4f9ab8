"""Waiting for what a test expects, with a bound: never for a length of time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

LOOK_SECONDS = 0.02

T = TypeVar("T")


async def until(what: str, look: Callable[[], Awaitable[T]], *, seconds: float = 30.0) -> T:
    """Look again and again, and return the first thing seen that isn't false; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        seen = await look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"after {seconds:g} s still waiting for {what}; last seen: {seen!r}"
        await asyncio.sleep(LOOK_SECONDS)
