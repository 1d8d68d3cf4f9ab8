"""Waiting for a service to answer: with a bound, and no longer than its process lives."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sitelog.deploy._daemon import Daemon
from sitelog.deploy._disk import FREE_SOME
from sitelog.streams.errors import UnavailableError

_POLL_SECONDS = 0.05
_LINES_SHOWN = 8
_TELLING = re.compile(r"ERROR|FATAL|PANIC|Exception|error:|No space left|already in use|Traceback", re.IGNORECASE)


@dataclass(frozen=True)
class Advice:
    """What to do when the log holds `symptom`."""

    symptom: str
    what_to_do: str


DISK_FULL = Advice("No space left on device", FREE_SOME)


async def until_ready(
    daemon: Daemon,
    answers: Callable[[], Awaitable[bool]],
    *,
    seconds_max: float,
    advice: Sequence[Advice] = (),
    has_ended: Callable[[], bool] | None = None,
) -> None:
    """Return as soon as `answers` does with True.

    Raises UnavailableError with the log's telling lines and what to do, as soon as the process has ended (or
    `has_ended` says so) or when `seconds_max` are over. The process is left as it is.
    """
    ended = has_ended or (lambda: daemon.running() is None)
    deadline = time.monotonic() + seconds_max
    while not await answers():
        if ended():
            raise UnavailableError(explain(daemon, "ended while starting", advice))
        if time.monotonic() > deadline:
            raise UnavailableError(explain(daemon, f"doesn't answer after {seconds_max:g} s", advice))
        await asyncio.sleep(_POLL_SECONDS)


def explain(daemon: Daemon, what: str, advice: Sequence[Advice]) -> str:
    """Return one message: what happened, the lines that tell why, what to do, and where the whole log is."""
    lines = daemon.last_lines(400)
    telling = [line for line in lines if _TELLING.search(line)] or lines
    text = "\n".join(lines)
    known = [one.what_to_do for one in advice if one.symptom in text]
    shown = "".join(f"\n  | {line}" for line in telling[-_LINES_SHOWN:])
    return f"{daemon.name} {what}. {'. '.join([*known, f'Its log is {daemon.log}'])}{shown}"
