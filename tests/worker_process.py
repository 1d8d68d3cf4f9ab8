"""A worker as users run one: `sitelog worker projector` as a process of its own, on a configuration file."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from sitelog.deploy._daemon import Daemon
from tests.until import until

PROJECTOR = ("worker", "projector")
ADDRESS = "listening on "


class WorkerProcess:
    """One process, the projector's unless another command is given.

    Its output goes to a file; the watchdog of `folder` ends it if the test can't.
    """

    def __init__(self, folder: Path, name: str, config: Path, *, command: tuple[str, ...] = PROJECTOR) -> None:
        self._daemon = Daemon(folder, name)
        self._command = (sys.executable, "-m", "sitelog.cli", *command, "--config", str(config))
        self._process: asyncio.subprocess.Process | None = None
        self._address = ""
        self.output = self._daemon.log

    async def start(self, environ: Mapping[str, str] | None = None) -> None:
        """Launch the process and return at once."""
        self.output.parent.mkdir(exist_ok=True)
        with self.output.open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env={"PATH": os.environ["PATH"], **(environ or {})},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._daemon.pid_file.parent.mkdir(exist_ok=True)
        self._daemon.record(self._process.pid)
        self._address = ""

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "the worker was never started"
        return self._process

    @property
    def runs(self) -> bool:
        return self.process.returncode is None

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ends(self, seconds: float = 20.0) -> int:
        """Wait for the end and return the exit code; minus the signal's number if one ended it."""
        async with asyncio.timeout(seconds):
            return await self.process.wait()

    async def stop(self) -> None:
        """End the process, politely if it listens; harmless if it has ended."""
        if self._process is not None and self.runs:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
            try:
                await self.ends()
            except TimeoutError:
                self.send(signal.SIGKILL)
                await self.ends()
        self._daemon.pid_file.unlink(missing_ok=True)

    # What it says.

    def text(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")

    def log(self) -> list[dict[str, Any]]:
        """Every line of the output, each of them JSON."""
        return [json.loads(line) for line in self.text().splitlines()]

    def said(self, part: str) -> bool:
        return any(part in line["message"] for line in self.log())

    async def get(self, path: str) -> httpx.Response:
        """Ask the health server; raises httpx.TransportError while it doesn't listen."""
        if not self._address:
            self._address = await until("the health server", self._listening)
        async with httpx.AsyncClient(timeout=10) as client:
            return await client.get(self._address + path)

    async def _listening(self) -> str:
        assert self.runs, f"the worker has ended with {self.process.returncode}: {self.text()}"
        _, listens, rest = self.text().rpartition(ADDRESS)
        address, is_whole, _ = rest.partition('"')
        return address if listens and is_whole else ""

    async def ready(self, seconds: float = 30.0) -> None:
        """Wait for /readyz to say yes."""
        await until("a ready worker", lambda: self.answer("/readyz", 200), seconds=seconds)

    async def answer(self, path: str, status: int | None = None) -> httpx.Response | None:
        """Return what the health server answers if it is of this status, None if not or if there is no answer."""
        try:
            response = await self.get(path)
        except httpx.TransportError:
            assert self.runs, f"the worker has ended with {self.process.returncode}: {self.text()}"
            return None
        return response if status in (None, response.status_code) else None

    async def complains(self, part: str) -> bool:
        """Tell whether the worker says that it isn't ready because of this."""
        answer = await self.answer("/readyz", 503)
        return answer is not None and part in answer.json()["detail"]

    async def metric(self, name: str, **labels: str) -> float:
        """Return the sum over all samples of this name that have these labels."""
        text = (await self.get("/metrics")).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        wanted = [s for s in samples if s.name == name and labels.items() <= s.labels.items()]
        assert wanted, f"no metric {name} with {labels}"
        return sum(sample.value for sample in wanted)
