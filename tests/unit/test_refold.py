"""A process of a replay ends with its replay, and leaves a Ctrl-C to it."""

import gc
import multiprocessing
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sitelog.agents import _refold
from sitelog.projections._rebuild import LogPartition
from sitelog.streams.errors import Halt

SPAN = _refold.Span(LogPartition(1, "customer-sites-events", 0), 10, 30)

PARENT = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from sitelog.agents import _refold

context = multiprocessing.get_context("spawn")
with ProcessPoolExecutor(1, context, _refold._start, (context.Array("q", 1, lock=False),)) as pool:
    print(pool.submit(os.getpid).result(), flush=True)
    if sys.argv[1] == "busy":
        pool.submit(time.sleep, 60)
    time.sleep(60)
"""


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What two processes at work would share with their parent, this process."""
    monkeypatch.setattr(gc, "disable", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    done = multiprocessing.get_context("spawn").Array("q", 3, lock=False)
    _refold._start(done)
    yield done
    _refold._start(None)


def moved(monkeypatch: pytest.MonkeyPatch, slot: int) -> None:
    """Let a process come as far as its first batch."""

    async def refold_span(*args: Any) -> None:
        args[-1](20)

    monkeypatch.setattr(_refold, "refold_span", refold_span)
    _refold._refold_in_process(None, ["contacts"], {}, SPAN, slot)  # type: ignore[arg-type]


def test_it_says_how_far_it_is(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    moved(monkeypatch, 1)
    assert list(shared) == [0, 20, 0]


def test_it_stops_when_it_is_told_to(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shared[2] = 1
    with pytest.raises(Halt, match="given up"):
        moved(monkeypatch, 0)


@pytest.mark.parametrize("busy", [False, True])
def test_it_ends_with_its_parent_also_while_it_has_nothing_to_do(*, busy: bool) -> None:
    command = [sys.executable, "-c", PARENT, "busy" if busy else "idle"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = Path("/proc", parent.stdout.readline().strip())
        assert runs(child)
        parent.kill()
    deadline = time.monotonic() + 20
    while runs(child):
        assert time.monotonic() < deadline, f"{child} still runs"
        time.sleep(0.02)


def is_deaf() -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def tell_if_deaf(done: Any) -> None:
    """Say in place of a process that starts whether a Ctrl-C would have hit it until now."""
    done[0] = is_deaf()


def do_nothing(*_: object) -> None:
    """Stand in for all work."""


async def test_a_ctrl_c_waits_while_its_processes_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_refold, "_start", tell_if_deaf)
    monkeypatch.setattr(_refold, "_refold_in_process", do_nothing)
    settings: Any = SimpleNamespace(replay=SimpleNamespace(processes=1))
    planned: Any = SimpleNamespace(projections=())
    told: list[int] = []

    await _refold._refold_apart(settings, planned, {}, [SPAN], told.append)

    assert told[-1] == 1, "it was not"
    assert not is_deaf()


def runs(process: Path) -> bool:
    """Tell whether it does: one that has ended may wait for somebody who reaps it."""
    try:
        return process.joinpath("stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_span_knows_how_many_events_it_has() -> None:
    assert SPAN.events == 20


def test_counting_goes_on_where_others_have_stopped() -> None:
    told: list[int] = []
    _refold.counting_on(told.append, 100)(5)
    assert told == [105]
