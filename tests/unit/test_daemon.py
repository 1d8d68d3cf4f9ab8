import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sitelog.deploy._daemon import LOG_BYTES_MAX, Daemon, started_daemons, stop_together
from sitelog.streams.errors import UnavailableError

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"

HEADLESS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print("headless", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.fixture
def daemon(tmp_path):
    yield (daemon := Daemon(tmp_path, "sleeper"))
    stop_together([daemon], [(signal.SIGKILL, 5)])


def await_line(daemon, line):
    deadline = time.monotonic() + 10
    while line not in daemon.last_lines(10):
        assert time.monotonic() < deadline, f"no {line!r} in {daemon.last_lines(10)}"
        time.sleep(0.01)


def test_a_started_process_is_found_again_by_another_handle(daemon, tmp_path):
    started = daemon.start(["sleep", "60"], os.environ)
    found = Daemon(tmp_path, "sleeper").running()
    assert found == started
    assert [one.name for one in started_daemons(tmp_path)] == ["sleeper"]


def test_it_leads_a_session_of_its_own_so_that_no_closed_terminal_ends_it(daemon):
    pid = daemon.start(["sleep", "60"], os.environ).pid
    assert os.getsid(pid) == pid


def test_a_program_that_does_not_exist_is_an_error_and_leaves_no_pid_file(daemon):
    with pytest.raises(FileNotFoundError):
        daemon.start(["/nowhere/at/all"], os.environ)
    assert not daemon.is_expected()


def test_a_process_whose_pid_can_not_be_noted_is_not_left_behind(daemon, tmp_path):
    """As on a full disk, but by a folder in the scratch file's place."""
    daemon.pid_file.with_suffix(".new").mkdir(parents=True)
    with pytest.raises(UnavailableError, match=r"sleeper can't be started without its pid file: .*Is a directory"):
        daemon.start(["sh", "-c", f"sleep 1; touch {tmp_path}/lived"], os.environ)
    time.sleep(1.2)
    assert not (tmp_path / "lived").exists()


def test_a_full_disk_is_named_with_what_to_do(daemon, monkeypatch):
    def record(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Daemon, "record", record)
    with pytest.raises(UnavailableError, match=r"No space left on device\. The disk is full: free some space"):
        daemon.start(["sleep", "60"], os.environ)


def test_a_dead_process_is_not_running_though_nobody_has_waited_for_it_but_is_still_expected(daemon):
    pid = daemon.start(["sleep", "60"], os.environ).pid
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while daemon.running() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert daemon.running() is None
    assert daemon.is_expected()


def test_a_dead_process_that_its_own_parent_has_not_waited_for_is_not_running(daemon):
    """A second command looks, while the one that started the process still lives."""
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess; child = subprocess.Popen(['true']); print(child.pid, flush=True); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        daemon.pid_file.parent.mkdir()
        pid = int(parent.stdout.readline())
        daemon.record(pid)
        deadline = time.monotonic() + 5
        while daemon.running() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert Path(f"/proc/{pid}").exists() == (sys.platform == "linux")
        assert daemon.running() is None
        parent.stdin.write("\n")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows a process's threads one by one")
def test_a_process_whose_first_thread_has_ended_runs_as_long_as_another_one_does(daemon):
    pid = daemon.start([sys.executable, "-c", HEADLESS], os.environ).pid
    await_line(daemon, "headless")
    stat = Path(f"/proc/{pid}/stat")
    deadline = time.monotonic() + 5
    while ") Z " not in stat.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ") Z " in stat.read_text()
    assert daemon.running() is not None


def test_another_process_that_got_the_same_pid_is_neither_taken_for_ours_nor_signalled(daemon, tmp_path):
    innocent = Daemon(tmp_path, "innocent")
    pid = innocent.start(["sleep", "60"], os.environ).pid
    record = json.loads(innocent.pid_file.read_text()) | {"identity": "an earlier process's"}
    daemon.pid_file.write_text(json.dumps(record))
    assert daemon.running() is None
    stop_together([daemon], [(signal.SIGKILL, 1)])
    assert innocent.running() is not None
    assert innocent.running().pid == pid
    stop_together([innocent], [(signal.SIGKILL, 5)])


@pytest.mark.parametrize("text", ['{"pid": 1', "{}", '{"pid": 1}', "[]", "1"])
def test_a_half_written_or_foreign_pid_file_counts_as_none(daemon, text):
    daemon.pid_file.parent.mkdir()
    daemon.pid_file.write_text(text)
    assert daemon.running() is None
    assert daemon.last_lines(1) == []


def test_what_ignores_the_polite_signal_is_killed_with_all_that_it_started(daemon):
    pid = daemon.start(
        [sys.executable, "-c", f"import subprocess; subprocess.Popen(['sleep', '61']); {DEAF}"], os.environ
    ).pid
    await_line(daemon, "deaf")
    began = time.monotonic()
    stop_together([daemon], [(signal.SIGTERM, 0.2), (signal.SIGKILL, 5)])
    assert time.monotonic() - began < 3
    assert daemon.running() is None
    assert not daemon.is_expected()
    with pytest.raises(ProcessLookupError):
        _await_group_end(pid)


def test_what_was_started_in_our_own_process_group_is_killed_without_us(daemon):
    daemon.pid_file.parent.mkdir()
    with subprocess.Popen(["sleep", "60"]) as process:
        daemon.record(process.pid)
        stop_together([daemon], [(signal.SIGKILL, 5)])
        assert daemon.running() is None


def _await_group_end(pid):
    for _ in range(500):
        os.killpg(pid, 0)
        time.sleep(0.01)


def test_stopping_what_does_not_run_is_harmless(daemon):
    stop_together([daemon], [(signal.SIGTERM, 1)])
    stop_together([daemon], [(signal.SIGTERM, 1)])


def test_several_are_told_to_end_at_once_and_not_one_after_the_other(tmp_path):
    daemons = [Daemon(tmp_path, f"deaf-{number}") for number in range(3)]
    for one in daemons:
        one.start([sys.executable, "-c", DEAF], os.environ)
    for one in daemons:
        await_line(one, "deaf")
    began = time.monotonic()
    stop_together(daemons, [(signal.SIGTERM, 0.3), (signal.SIGKILL, 5)])
    assert time.monotonic() - began < 0.8
    assert not any(one.is_expected() for one in daemons)


def test_the_last_lines_are_those_since_the_latest_start(daemon):
    daemon.start(["sh", "-c", "echo an old error >&2; echo done"], os.environ)
    await_line(daemon, "done")
    daemon.start(["sh", "-c", "echo a new line; echo ready"], os.environ)
    await_line(daemon, "ready")
    assert daemon.last_lines(10) == ["a new line", "ready"]
    assert daemon.last_lines(1) == ["ready"]
    assert "an old error" in daemon.log.read_text()


def test_a_log_that_has_grown_too_large_is_put_aside_at_the_next_start(daemon):
    daemon.log.parent.mkdir(parents=True)
    daemon.log.write_bytes(b"x" * (LOG_BYTES_MAX + 1))
    daemon.start(["sh", "-c", "echo fresh"], os.environ)
    await_line(daemon, "fresh")
    assert daemon.log.stat().st_size < 100
    assert daemon.log.with_suffix(".log.1").stat().st_size == LOG_BYTES_MAX + 1


def test_only_its_owner_can_read_a_log(daemon):
    daemon.start(["sh", "-c", "echo secret"], os.environ)
    assert daemon.log.stat().st_mode & 0o077 == 0
