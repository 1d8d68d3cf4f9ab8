"""Folds spans of the log in processes of their own: one per core, each at other log partitions."""

import asyncio
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sitelog.projections._database import connect
from sitelog.projections._install import owner_of
from sitelog.projections._rebuild import FreshRows, LogFold, LogPartition, learn
from sitelog.projections._registry import Plan, load, plan
from sitelog.projections._switch import refuse_others
from sitelog.streams.codec import Codec
from sitelog.streams.errors import Halt
from sitelog.streams.settings import Settings

PROCESSES_FROM_EVENTS: Final = 100_000
"""Below this a second process takes longer to start than it saves."""

PROGRESS_SECONDS: Final = 0.1

APPLICATION: Final = "sitelog replay"

AT_WORK: Final = 5_172_617_803
"""Advisory lock that whatever works for a replay shares: nothing of it may outlive its replay unnoticed.

A replay has it alone until its fresh tables are there: whoever shares it sees the same ones for as long.
"""

Moved = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Span:
    """Events of one log partition, after the log seq `after` and up to `until`, that are to be folded."""

    part: LogPartition
    after: int
    until: int

    @property
    def events(self) -> int:
        """How many they are."""
        return self.until - self.after


def counting_on(moved: Moved, done: int) -> Moved:
    """Return what tells `moved` of events after so many that are done already."""
    return lambda events: moved(done + events)


async def refold(
    settings: Settings, planned: Plan, created: Mapping[str, int], spans: Sequence[Span], moved: Moved
) -> None:
    """Fold the spans into the fresh tables, and tell `moved` from time to time how many events are done.

    Raises Halt for an event that can't be folded, what has been written by then stays in the fresh tables; where these
    are no longer those that were `created`, by their oids; and where a process was killed.
    """
    spans = [span for span in spans if span.events]
    # A process loads the read models by itself: functions can't be sent to it.
    own = {projection.name for projection in planned.projections} <= {projection.name for projection in load()}
    several = settings.replay.processes > 1 and len(spans) > 1
    if own and several and sum(span.events for span in spans) >= PROCESSES_FROM_EVENTS:
        await _refold_apart(settings, planned, created, spans, moved)
        return
    done = 0
    for span in spans:
        await refold_span(settings, planned, created, span, counting_on(moved, done))
        done += span.events


async def refold_span(settings: Settings, planned: Plan, created: Mapping[str, int], span: Span, moved: Moved) -> None:
    """Fold one span over a connection of its own, and write all of its rows."""
    connection = await connect(owner_of(settings), application=APPLICATION)
    try:
        await connection.execute("SELECT pg_advisory_lock_shared($1)", AT_WORK)
        await refuse_others(connection, created)
        # Until the switch commits, nothing of this is of use to anybody.
        await connection.execute("SET synchronous_commit = off")
        codec = Codec()
        await learn(connection, codec)
        rows_max, started = settings.replay.rows_in_memory_max, span.after > 0
        rows = FreshRows(connection, planned, span.part.number, rows_max=rows_max, started=started)
        fold = LogFold(codec, settings.replay)
        await fold.run(rows, span.part, span.after, span.until, lambda seq: moved(seq - span.after))
        await rows.flush()
    finally:
        await connection.close()


async def _refold_apart(
    settings: Settings, planned: Plan, created: Mapping[str, int], spans: Sequence[Span], moved: Moved
) -> None:
    context = multiprocessing.get_context("spawn")
    done = context.Array("q", len(spans) + 1, lock=False)  # one more: set to stop
    names = tuple(projection.name for projection in planned.projections)
    loop = asyncio.get_running_loop()
    longest_first = sorted(enumerate(spans), key=lambda numbered: -numbered[1].events)
    processes = min(settings.replay.processes, len(spans))
    with ProcessPoolExecutor(processes, context, _start, (done,)) as pool:
        with _without_interrupt():  # each is started as soon as there is work for it
            pending = {
                loop.run_in_executor(pool, _refold_in_process, settings, names, created, span, slot)
                for slot, span in longest_first
            }
        try:
            while pending:
                finished, pending = await asyncio.wait(
                    pending, timeout=PROGRESS_SECONDS, return_when=asyncio.FIRST_EXCEPTION
                )
                moved(sum(done[: len(spans)]))
                for future in finished:
                    future.result()
        except BrokenProcessPool as error:
            raise Halt(
                f"a process that folds the log was killed, probably as memory ran out: give it more, take fewer "
                f"replay.processes ({processes}) or a smaller replay.rows_in_memory_max"
            ) from error
        finally:
            done[len(spans)] = 1
            pool.shutdown(cancel_futures=True)


@contextmanager
def _without_interrupt() -> Iterator[None]:
    """Let a Ctrl-C wait, in processes that are started meanwhile until they ignore it: Python is long in starting."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_done: Any = None


def _start(done: Any) -> None:
    """Take what a new process shares with the one that started it."""
    global _done  # noqa: PLW0603 - what is shared can only come at its start
    _done = done
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Folding makes millions of objects and no cycles: looking for some would cost a quarter of the time.
    gc.disable()
    # A Ctrl-C is for the replay, which then tells its processes to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_with_parent() -> None:
    """End this process where the replay was killed: one without work waits for more of it, and would for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _refold_in_process(
    settings: Settings, names: Sequence[str], created: Mapping[str, int], span: Span, slot: int
) -> None:
    def moved(events: int) -> None:
        _done[slot] = events
        if _done[-1]:
            raise Halt("the replay was given up")

    planned = plan(projection for projection in load() if projection.name in names)
    asyncio.run(refold_span(settings, planned, created, span, moved))
