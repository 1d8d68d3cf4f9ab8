import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sitelog.deploy._daemon import Daemon, stop_together
from sitelog.deploy._supervisor import next_pause, read_restarts, worker_daemon


@pytest.mark.parametrize(
    ("previous", "lived", "expected"),
    [(0.0, 0.1, 1.0), (1.0, 0.1, 2.0), (16.0, 3.0, 30.0), (30.0, 3.0, 30.0), (30.0, 61.0, 1.0), (0.0, 1e9, 1.0)],
)
def test_the_pause_doubles_up_to_half_a_minute_and_starts_over_after_a_steady_run(previous, lived, expected):
    assert next_pause(previous, lived) == expected


@pytest.fixture
def supervised(tmp_path):
    """Starts a supervisor over a Python program, with 1 s of grace, and ends it."""
    supervisor = Daemon(tmp_path, "w")

    def start(program):
        command = [sys.executable, "-m", "sitelog.deploy._supervisor", str(tmp_path), "w", "1"]
        supervisor.start([*command, sys.executable, "-c", program], os.environ)
        return supervisor

    yield start
    stop_together([supervisor, worker_daemon(tmp_path, "w")], [(signal.SIGKILL, 5)])


async def until(condition):
    async with asyncio.timeout(20):
        while not (result := condition()):  # noqa: ASYNC110 - another process tells nobody
            await asyncio.sleep(0.02)
    return result


async def test_a_worker_that_is_killed_is_started_again_within_seconds(supervised, tmp_path):
    supervised("import time; time.sleep(60)")
    first = await until(worker_daemon(tmp_path, "w").running)
    os.kill(first.pid, signal.SIGKILL)
    killed = time.monotonic()
    await until(lambda: (now := worker_daemon(tmp_path, "w").running()) and now.pid != first.pid)
    assert 0.9 < time.monotonic() - killed < 5
    assert read_restarts(tmp_path, "w").count == 1
    assert read_restarts(tmp_path, "w").exit_status == -signal.SIGKILL


async def test_the_log_says_with_what_it_ended_and_when_it_starts_again(supervised):
    supervisor = supervised("raise SystemExit(75)")
    await until(lambda: "w ended with status 75; start 2 follows in 1 s" in supervisor.last_lines(5))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
@pytest.mark.parametrize("log", ["log", "/dev/full"])
def test_a_disk_on_which_nothing_can_be_noted_does_not_end_it(tmp_path, log):
    """Nothing can be noted where the folder `run` is missing, either."""
    program = "import sys; file = open('starts', 'a+'); file.write('.'); sys.exit(75 if file.tell() == 1 else 0)"
    command = [sys.executable, "-m", "sitelog.deploy._supervisor", str(tmp_path), "w", "1"]
    with (tmp_path / log).open("w") as stderr:
        subprocess.run([*command, sys.executable, "-c", program], cwd=tmp_path, stderr=stderr, timeout=20, check=False)
    assert (tmp_path / "starts").read_text() == ".."
    if log == "log":
        said = [re.sub(r"\d+: .*", "N", line) for line in (tmp_path / log).read_text().splitlines()]
        assert said == [
            "w can't note its pid N",
            "w can't note its restart N",
            "w ended with status 75; start 2 follows in 1 s",
            "w can't note its pid N",
            "w ended with status 0; not started again",
        ]


@pytest.mark.parametrize("status", [0, 2])
async def test_a_worker_that_ended_by_hand_or_is_misconfigured_is_left_alone(supervised, status):
    supervisor = supervised(f"raise SystemExit({status})")
    await until(lambda: supervisor.running() is None)
    assert supervisor.last_lines(1) == [f"w ended with status {status}; not started again"]


async def test_ending_the_supervisor_ends_its_worker_first(supervised, tmp_path):
    supervisor = supervised(
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('bye'), sys.exit())); "
        "print('ready', flush=True); time.sleep(60)"
    )
    await until(lambda: "ready" in supervisor.last_lines(5))
    stop_together([supervisor], [(signal.SIGTERM, 5)])
    assert supervisor.log.read_text().splitlines()[-1] == "bye"
    assert worker_daemon(tmp_path, "w").running() is None


async def test_a_worker_that_does_not_end_is_killed_after_its_grace(supervised, tmp_path):
    supervisor = supervised(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    await until(lambda: "deaf" in supervisor.last_lines(5))
    began = time.monotonic()
    stop_together([supervisor], [(signal.SIGTERM, 10)])
    assert 0.9 < time.monotonic() - began < 5
    assert worker_daemon(tmp_path, "w").running() is None


async def test_a_worker_whose_supervisor_was_killed_is_killed_if_it_does_not_end(supervised, tmp_path):
    """It is in the process group of its supervisor, which nobody leads any more."""
    supervisor = supervised(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    await until(lambda: "deaf" in supervisor.last_lines(5))
    os.kill(supervisor.running().pid, signal.SIGKILL)
    await until(lambda: supervisor.running() is None)
    worker = worker_daemon(tmp_path, "w")
    assert worker.running()
    stop_together([worker], [(signal.SIGTERM, 0.1), (signal.SIGKILL, 5)])
    assert worker.running() is None


async def test_a_program_that_cannot_be_started_is_tried_again_until_it_can(tmp_path):
    program = tmp_path / "program"
    supervisor = Daemon(tmp_path, "w")
    command = [sys.executable, "-m", "sitelog.deploy._supervisor", str(tmp_path), "w", "1", str(program)]
    supervisor.start(command, os.environ)
    await until(lambda: any("can't be started: [Errno 2] " in line for line in supervisor.last_lines(5)))
    scratch = tmp_path / "scratch"
    scratch.write_text("#!/bin/sh\nexit 0\n")
    scratch.chmod(0o755)
    scratch.replace(program)
    await until(lambda: supervisor.running() is None)
    assert re.search(r"w can't be started: .*; tried again in 1 s", supervisor.log.read_text())
    assert supervisor.last_lines(1) == ["w ended with status 0; not started again"]


async def test_being_ended_during_a_pause_ends_it_at_once(supervised):
    supervisor = supervised("raise SystemExit(1)")
    await until(lambda: "w ended with status 1; start 2 follows in 1 s" in supervisor.last_lines(5))
    began = time.monotonic()
    stop_together([supervisor], [(signal.SIGTERM, 5)])
    assert time.monotonic() - began < 0.9
