"""The watchdog of a test session leaves nothing of its services on the machine."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from sitelog.deploy._state import new_state
from sitelog.deploy.postgres import postgres_daemon, start_postgres
from tests.conftest import watched_folder


@pytest.mark.services
@pytest.mark.skipif(sys.platform != "linux", reason="only there /proc tells of shared memory")
@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_a_postgres_that_the_watchdog_ends_leaves_no_shared_memory_behind(*, frozen: bool) -> None:
    with watched_folder() as folder:
        asyncio.run(start_postgres(folder, new_state(brokers=1), os.environ))
        running = postgres_daemon(folder).running()
        assert running is not None
        mapped = [line.split() for line in Path(f"/proc/{running.pid}/maps").read_text(encoding="utf-8").splitlines()]
        files = {Path(parts[5]) for parts in mapped if "PostgreSQL." in parts[-1]}
        segment = (folder / "postgres" / "postmaster.pid").read_text(encoding="utf-8").splitlines()[6].split()
        assert files
        assert segment in segments()
        if frozen:
            os.kill(running.pid, signal.SIGSTOP)

    assert not [file for file in files if file.exists()]
    assert segment not in segments()


def segments() -> list[list[str]]:
    """Return key and id of every System V segment of this machine."""
    return [line.split()[:2] for line in Path("/proc/sysvipc/shm").read_text(encoding="utf-8").splitlines()]
