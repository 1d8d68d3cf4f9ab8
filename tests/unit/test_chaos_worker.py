"""A worker's place: who is killed or frozen there is hit, and whoever isn't there isn't."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.worker import Worker
from tests.until import until

MOMENT = 0.1
SLEEPS = (sys.executable, "-c", "import time; time.sleep(60)")
ENDS = (sys.executable, "-c", "raise SystemExit(69)")


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    """A place whose process only sleeps."""
    worker = Worker(tmp_path, "worker-0", tmp_path / "worker.yaml")
    worker._command = SLEEPS
    yield worker
    await worker.kill()
    await worker.close()


async def is_running(worker: Worker) -> bool:
    return worker._process is not None


async def has_ended(worker: Worker) -> bool:
    return bool(worker.ended)


async def test_kill_and_freeze_say_whether_they_have_hit_anybody(worker: Worker) -> None:
    assert not worker.freeze()
    assert not await worker.kill()
    worker.start()
    await until("its process", lambda: is_running(worker))
    assert worker.freeze()
    assert await worker.kill()
    assert not worker.freeze()
    assert not await worker.kill()
    assert worker.ended == []


async def test_one_that_has_just_ended_by_itself_isn_t_hit_and_stays_away(worker: Worker) -> None:
    worker._command = ENDS
    worker.start()
    await until("its end", lambda: has_ended(worker))
    assert not await worker.kill()
    assert worker.ended == [69]


async def test_one_that_is_being_started_is_killed_as_soon_as_it_runs(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting, go = asyncio.Event(), asyncio.Event()
    really = asyncio.create_subprocess_exec

    async def slowly(*command: Any, **options: Any) -> asyncio.subprocess.Process:
        starting.set()
        await go.wait()
        return await really(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", slowly)
    worker.start()
    await starting.wait()
    killing = asyncio.create_task(worker.kill())
    await asyncio.sleep(0)
    go.set()
    assert await killing
    assert worker._process is not None
    assert worker._process.returncode == -9
    assert worker.ended == []


async def test_one_that_nobody_wants_any_more_isn_t_started(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any, **__: Any) -> asyncio.subprocess.Process:
        raise AssertionError

    monkeypatch.setattr(asyncio, "create_subprocess_exec", never)
    await asyncio.sleep(0)  # it waits to be wanted
    worker.start()
    assert not await worker.kill()
    await asyncio.sleep(MOMENT)
    assert not worker._keeping.done()
