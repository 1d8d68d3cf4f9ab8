"""Processes that outlive the command which started them, found again by pid and start time."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sitelog.deploy._disk import FREE_SOME
from sitelog.streams.errors import UnavailableError

LOG_BYTES_MAX = 10 * 1024 * 1024
_POLL_SECONDS = 0.02
_TAIL_BYTES = 64 * 1024
_FULL = {errno.ENOSPC, errno.EDQUOT}
_RECORD_KEYS = {"pid", "identity", "started_at", "log_from"}


@dataclass(frozen=True)
class Running:
    """A process that is alive now; `started_at` is in seconds since the epoch."""

    pid: int
    started_at: float


class Daemon:
    """One background process of a state folder: its pid file in `run/`, its output in `logs/`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.pid_file = folder / "run" / f"{name}.json"
        self.log = folder / "logs" / f"{name}.log"

    def start(self, command: Sequence[str], environ: Mapping[str, str]) -> Running:
        """Start `command` in a session of its own, its output appended to the log.

        Raises OSError when the program can't be executed, UnavailableError when its pid can't be noted: then it doesn't
        run either, as nobody would find it again. The caller has made sure that none is running.
        """
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._rotate()
        log_from = self.log.stat().st_size if self.log.exists() else 0
        out = (os.POSIX_SPAWN_OPEN, 1, str(self.log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        # posix_spawn rather than subprocess: nothing here waits for the child, and Popen complains if nobody does.
        pid = os.posix_spawnp(
            command[0],
            list(command),
            dict(environ),
            setsid=True,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                out,
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )
        try:
            return self.record(pid, log_from=log_from)
        except OSError as error:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            advice = f". {FREE_SOME}" if error.errno in _FULL else ""
            raise UnavailableError(f"{self.name} can't be started without its pid file: {error}{advice}") from error

    def record(self, pid: int, *, log_from: int = 0) -> Running:
        """Write the pid file of a process that was started as this daemon; its log begins at byte `log_from`."""
        running = Running(pid, time.time())
        record = {
            "pid": pid,
            "identity": _identity(pid),
            "started_at": running.started_at,
            "log_from": log_from,
        }
        scratch = self.pid_file.with_suffix(".new")
        scratch.write_text(json.dumps(record), encoding="utf-8")
        scratch.replace(self.pid_file)
        return running

    def running(self) -> Running | None:
        """Return the process if it is alive, and None if it isn't, or if its pid now belongs to another."""
        record = self._read()
        if record is None:
            return None
        pid = int(record["pid"])
        _reap(pid)
        identity = _identity(pid)
        if identity is None or identity != record["identity"]:
            return None
        return Running(pid, float(record["started_at"]))

    def is_expected(self) -> bool:
        """Return whether it should be running: it was started, and nobody has stopped it since."""
        return self.pid_file.exists()

    def last_lines(self, count: int) -> list[str]:
        """Return the last lines, at most `count`, that the log has got since the latest start."""
        record = self._read()
        if record is None or not self.log.exists():
            return []
        with self.log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(int(record["log_from"]), log.tell() - _TAIL_BYTES))
            return log.read().decode("utf-8", "replace").splitlines()[-count:]

    def _read(self) -> dict[str, Any] | None:
        """Return what the pid file says; None where there is none, or one that isn't ours or was cut off."""
        try:
            record = json.loads(self.pid_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return record if isinstance(record, dict) and record.keys() >= _RECORD_KEYS else None

    def _rotate(self) -> None:
        """Keep one older log, so that a stack which is started for months doesn't fill the disk."""
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))


def started_daemons(folder: Path) -> list[Daemon]:
    """Return the handle of every process that was started for `folder` and not stopped since, alive or not."""
    return [Daemon(folder, pid_file.stem) for pid_file in sorted((folder / "run").glob("*.json"))]


def stop_together(daemons: Sequence[Daemon], steps: Sequence[tuple[signal.Signals, float]]) -> None:
    """Send each signal in turn to all that still run, waiting its seconds for their end; harmless if none runs.

    Raises nothing: one that not even SIGKILL ends (it hangs in the kernel) keeps its pid file.
    """
    for number, seconds in steps:
        for daemon in daemons:
            _send(daemon, number)
        deadline = time.monotonic() + seconds
        while any(daemon.running() for daemon in daemons) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    for daemon in daemons:
        if daemon.running() is None:
            daemon.pid_file.unlink(missing_ok=True)


def _send(daemon: Daemon, number: signal.Signals) -> None:
    running = daemon.running()
    if running is None:
        return
    try:
        # The whole process group, so that nothing which the process started is left. A worker is in its supervisor's,
        # also when that has gone; what was started in our own group dies alone.
        if number is signal.SIGKILL and (group := os.getpgid(running.pid)) != os.getpgrp():
            os.killpg(group, number)
        else:
            os.kill(running.pid, number)
    except ProcessLookupError:
        return


def _reap(pid: int) -> None:
    """Let a dead child of this very process vanish; another's child is none of our business."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def _identity(pid: int) -> str | None:
    """Return what tells this process from a later one with the same pid; None if it is gone or a zombie."""
    if sys.platform != "linux":
        answer = subprocess.run(  # noqa: S603 - no input but a number
            ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return answer.stdout.strip() or None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in brackets and may hold anything, even a bracket.
    fields = stat.rpartition(")")[2].split()
    state, threads, start_ticks = fields[0], int(fields[17]), fields[19]
    # While a killed JVM's other threads still end, its first one is a zombie already, and its ports are still taken.
    if state == "X" or (state == "Z" and threads == 1):
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return f"{boot}:{start_ticks}"
