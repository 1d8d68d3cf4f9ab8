"""SIGTERM, also for the first process of a container, which gets no signal that it has no handler for.

It ends a command as Ctrl-C does, with an exception wherever that is just now. One that has nothing to clean up ends at
once instead: compiled modules that an exception leaves half imported take the process down when they are used.
"""

import os
import signal
from dataclasses import dataclass
from types import FrameType
from typing import Final

EXIT_TERMINATED: Final = 143
"""SIGTERM, as a shell counts it; a worker that runs ends with 0 instead."""


@dataclass
class _Told:
    at_once: bool = True
    was_told: bool = False


_TOLD: Final = _Told()


def listen() -> None:
    """End at the next SIGTERM, from here on; a worker has a handler of its own later."""
    signal.signal(signal.SIGTERM, _end)


def end_at_once(*, at_once: bool) -> None:
    """Say whether there is nothing to clean up."""
    _TOLD.at_once = at_once


def was_told() -> bool:
    """Tell whether SIGTERM has come, and be deaf to any further: the process ends already."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return _TOLD.was_told


def _end(_: int, frame: FrameType | None) -> None:
    if _TOLD.at_once:
        os._exit(EXIT_TERMINATED)
    _TOLD.was_told = True
    # Every command cleans up after it: asyncio cancels what is under way.
    interrupt = signal.getsignal(signal.SIGINT)
    (interrupt if callable(interrupt) else signal.default_int_handler)(signal.SIGINT, frame)
