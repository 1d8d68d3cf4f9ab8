"""SIGTERM before a worker has a handler of its own: also as the first process of a container, which has no default."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from sitelog.deploy._configuration import configuration
from sitelog.deploy._state import new_state
from tests.silent import Silent, open_silent

SECONDS_MAX = 10
FIRST = ("unshare", "--pid", "--fork", "--kill-child")
"""What makes a process the first one of its own, as in a container."""


@pytest.fixture
async def silent() -> AsyncIterator[Silent]:
    async with open_silent() as silent:
        yield silent


@pytest.fixture
def config(silent: Silent, tmp_path: Path) -> Path:
    values = configuration(new_state(brokers=1))
    values["database_config"]["primary"]["port"] = silent.port
    path = tmp_path / "sitelog.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def cant_be_first() -> bool:
    tool = shutil.which(FIRST[0])
    return tool is None or subprocess.run([*FIRST, "true"], capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize(
    "prefix",
    [(), pytest.param(FIRST, marks=pytest.mark.skipif(cant_be_first(), reason="unshare isn't there or allowed"))],
    ids=["like any other", "first of its container"],
)
@pytest.mark.parametrize("command", [("worker", "projector"), ("db", "init"), ("replay",)], ids=" ".join)
async def test_sigterm_ends_whoever_waits_for_a_server(
    prefix: tuple[str, ...], command: tuple[str, ...], silent: Silent, config: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        *prefix,
        *(sys.executable, "-m", "sitelog.cli", *command, "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(SECONDS_MAX):
        await silent.asked.wait()
    os.kill(child_of(process.pid) if prefix else process.pid, signal.SIGTERM)
    async with asyncio.timeout(SECONDS_MAX):
        _, said = await process.communicate()
    assert (process.returncode, said) == (143, b"")


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


WHILE_IMPORTED = """
import os, signal, sys, time
class Importing:
    def find_spec(self, name, *_):
        if name == "sitelog.{module}":
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            except BaseException:
                os._exit(9)
sys.meta_path.insert(0, Importing())
sys.argv = ["sitelog", *{command}]
from sitelog.cli.main import run
run()
"""
AT_THE_END = """
import atexit, os, signal, sys
atexit.register(os.kill, os.getpid(), signal.SIGTERM)
sys.argv = ["sitelog", "--version"]
from sitelog.cli.main import run
run()
"""


@pytest.mark.parametrize(
    ("module", "command"), [("agents._logging", ["worker", "projector"]), ("cli.lag", ["lag"])], ids=["worker", "lag"]
)
def test_sigterm_interrupts_no_import(module: str, command: list[str]) -> None:
    program = WHILE_IMPORTED.format(module=module, command=command)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=SECONDS_MAX)
    assert (ran.returncode, ran.stderr) == (143, b"")


def test_sigterm_changes_nothing_in_what_ends_already() -> None:
    ran = subprocess.run([sys.executable, "-c", AT_THE_END], capture_output=True, check=False, timeout=SECONDS_MAX)
    assert (ran.returncode, ran.stdout[:8], ran.stderr) == (0, b"sitelog ", b"")
