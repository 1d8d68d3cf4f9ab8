"""Keeps one worker running: started again when it dies, ended when the supervisor is told to end.

Run as `python -m sitelog.deploy._supervisor FOLDER NAME GRACE_SECONDS COMMAND…`, one process per worker, so that
the death of one worker, or of one supervisor, is nobody else's.
"""

import asyncio
import json
import signal
import sys
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sitelog.deploy._daemon import Daemon

_SUFFIX = ".worker"
# kill -9 of a worker heals this soon: Kafka still holds a static member's partitions for it.
PAUSE_SECONDS_MIN = 1.0
PAUSE_SECONDS_MAX = 30.0
# A worker that has run so long had nothing wrong at its start: the next pause is the shortest again.
STEADY_SECONDS = 60.0
# 0: it was ended by hand. 2: its configuration is wrong, and no restart corrects that.
FINAL_STATUSES = frozenset({0, 2})


@dataclass(frozen=True)
class Restarts:
    """How often a worker was started again since `sitelog up`, and what it last ended with.

    `exit_status` is negative for the number of a signal, as Python has it; None before the first end.
    """

    count: int = 0
    exit_status: int | None = None


def worker_daemon(folder: Path, name: str) -> Daemon:
    """Return the handle of the worker itself; its supervisor's is `Daemon(folder, name)`."""
    return Daemon(folder, f"{name}{_SUFFIX}")


def supervisor_name(name: str) -> str:
    """Return the supervisor's name for a worker's own, and any other daemon's name as it is."""
    return name.removesuffix(_SUFFIX)


def read_restarts(folder: Path, name: str) -> Restarts:
    """Return what the supervisor has noted; zero restarts if it hasn't noted anything."""
    try:
        return Restarts(**json.loads(_restarts_path(folder, name).read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError):
        return Restarts()


def forget_restarts(folder: Path, name: str) -> None:
    """Count from zero again; harmless if nothing was counted."""
    _restarts_path(folder, name).unlink(missing_ok=True)


def next_pause(previous: float, lived_seconds: float) -> float:
    """Return how many seconds to wait before the next start: doubled each time, from 1 s to 30 s, unless it lived."""
    if lived_seconds >= STEADY_SECONDS:
        return PAUSE_SECONDS_MIN
    return min(PAUSE_SECONDS_MAX, max(PAUSE_SECONDS_MIN, previous * 2))


async def supervise(folder: Path, name: str, grace_seconds: float, command: Sequence[str]) -> int:
    """Run `command` again and again until SIGTERM or a final exit status; return the status to end with."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    restarts, pause = Restarts(), 0.0
    while True:
        started = time.monotonic()
        try:
            process = await asyncio.create_subprocess_exec(*command)
        except OSError as error:
            # Too many processes, or Python itself is being replaced: both pass.
            pause = next_pause(pause, 0)
            _say(name, f"can't be started: {error}; tried again in {pause:g} s")
            if await _set_within(stop, pause):
                return 0
            continue
        with _reported(name, f"its pid {process.pid}"):
            worker_daemon(folder, name).record(process.pid)
        await _first(process.wait(), stop.wait())
        if process.returncode is None:
            return await _end(process, grace_seconds)
        if process.returncode in FINAL_STATUSES:
            _say(name, f"ended with status {process.returncode}; not started again")
            return process.returncode
        pause = next_pause(pause, time.monotonic() - started)
        restarts = Restarts(restarts.count + 1, process.returncode)
        with _reported(name, f"its restart {restarts.count}"):
            _note(folder, name, restarts)
        _say(name, f"ended with status {process.returncode}; start {restarts.count + 1} follows in {pause:g} s")
        if await _set_within(stop, pause):
            return 0


async def _end(process: asyncio.subprocess.Process, grace_seconds: float) -> int:
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), grace_seconds)
    except TimeoutError:
        process.kill()
        await process.wait()
    return 0


async def _first(*coroutines: Coroutine[object, object, object]) -> None:
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


@contextmanager
def _reported(name: str, what: str) -> Iterator[None]:
    """Say what can't be noted, and go on: a full disk is no reason to leave a worker without a supervisor."""
    try:
        yield
    except OSError as error:
        _say(name, f"can't note {what}: {error}")


def _note(folder: Path, name: str, restarts: Restarts) -> None:
    path = _restarts_path(folder, name)
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(asdict(restarts)), encoding="utf-8")
    scratch.replace(path)


def _restarts_path(folder: Path, name: str) -> Path:
    return folder / "run" / f"{name}.restarts"


def _say(name: str, what: str) -> None:
    """Write to the log that supervisor and worker share, unless its disk is full."""
    with suppress(OSError):
        print(f"{name} {what}", file=sys.stderr, flush=True)  # noqa: T201 - stderr is the log


if __name__ == "__main__":
    _folder, _name, _grace, *_command = sys.argv[1:]
    sys.exit(asyncio.run(supervise(Path(_folder), _name, float(_grace), _command)))
