"""Runs a module under Python's own profiler: `python -m tests.benchmarks.profiled FILE MODULE [ARGUMENT]...`.

The main thread is profiled from the first SIGPROF on, so that imports and start-up stay out of it; threads from
their own beginning. Times are processor time, so neither waiting nor other processes are in them. The statistics
are in FILE when the process has ended.
"""

import contextlib
import cProfile
import pstats
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any


def main(file: str, module: str, *arguments: str) -> None:
    profiles = [cProfile.Profile(time.thread_time)]
    signal.signal(signal.SIGPROF, lambda *_: profiles[0].enable())
    start = threading.Thread.start
    threading.Thread.start = lambda thread: _start_profiled(thread, start, profiles)  # type: ignore[method-assign]
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        profiles[0].disable()
        stats = pstats.Stats(profiles[0])
        for profile in profiles[1:]:
            stats.add(profile)
        stats.dump_stats(file)


def _start_profiled(thread: threading.Thread, start: Callable[[Any], None], profiles: list[cProfile.Profile]) -> None:
    run = thread.run

    def run_profiled() -> None:
        profile = cProfile.Profile(time.thread_time)
        # From Python 3.12 on, only one thread at a time can have a profiler.
        with contextlib.suppress(ValueError):
            profile.enable()
        try:
            run()
        finally:
            profile.disable()
            profiles.append(profile)

    thread.run = run_profiled  # type: ignore[method-assign]
    start(thread)


if __name__ == "__main__":
    main(*sys.argv[1:])
