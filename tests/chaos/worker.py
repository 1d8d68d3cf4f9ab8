"""One worker's place: a process of `sitelog worker projector`, started again when it ends, as a supervisor would."""

import asyncio
import os
import re
import signal
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from time import monotonic

import httpx

from sitelog.deploy._daemon import Daemon

PAUSE_SECONDS = 1.0
TERM_SECONDS_MAX = 20.0
"""A worker ends itself within `worker.shutdown_seconds`, 10 s."""

KILL_SECONDS_MAX = 10.0
METRICS_SECONDS_MAX = 5.0


class Worker:
    """`ended` are the exit codes of ends that nobody asked for, `answers` those after SIGTERM, with their seconds."""

    def __init__(self, folder: Path, name: str, config: Path) -> None:
        self.name = name
        self.ended: list[int] = []
        self.answers: list[tuple[int, float]] = []
        self._daemon = Daemon(folder, name)
        self._command = (sys.executable, "-m", "sitelog.cli", "worker", "projector", "--config", str(config))
        self._wanted = asyncio.Event()
        self._launching = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._keeping = asyncio.create_task(self._keep(), name=name)

    def start(self) -> None:
        """Have it running from now on."""
        self._wanted.set()

    async def kill(self) -> bool:
        """End it with -9, and leave it ended; return whether it was running."""
        return await self._end(signal.SIGKILL, KILL_SECONDS_MAX) is not None

    async def terminate(self) -> None:
        """End it with SIGTERM, and leave it ended; one that doesn't end in time is killed, which counts as -9."""
        since = monotonic()
        code = await self._end(signal.SIGTERM, TERM_SECONDS_MAX)
        if code is not None:
            self.answers.append((code, monotonic() - since))

    def freeze(self) -> bool:
        """Stop it where it is; return whether it was running."""
        return self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)

    async def close(self) -> None:
        """End it for good."""
        self.thaw()
        await self.terminate()
        self._keeping.cancel()
        with suppress(asyncio.CancelledError):
            await self._keeping

    async def verdicts(self) -> Counter[str]:
        """Return how many batches its process has applied, or found that it must not; nothing if it doesn't answer."""
        text = self._daemon.log.read_text(encoding="utf-8", errors="replace") if self._daemon.log.exists() else ""
        address = re.findall(r"listening on (http://[^\"]+)", text)[-1:]
        if not address or self._process is None or self._process.returncode is not None:
            return Counter()
        try:
            async with httpx.AsyncClient(timeout=METRICS_SECONDS_MAX, trust_env=False) as client:
                metrics = (await client.get(f"{address[0]}/metrics")).text
        except httpx.HTTPError:
            return Counter()
        found: Counter[str] = Counter()
        for verdict, count in re.findall(
            r'^sitelog_batches_total\{.*verdict="(\w+)".*\} (\S+)$', metrics, re.MULTILINE
        ):
            found[verdict] += round(float(count))
        return found

    async def _end(self, number: signal.Signals, seconds: float) -> int | None:
        """Return the exit code, None if it wasn't running."""
        self._wanted.clear()
        async with self._launching:  # one that is just being started is to be met, too
            process = self._process
        if process is None or process.returncode is not None:
            return None
        self._send(number)
        try:
            return await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            self._send(signal.SIGKILL)
            return await asyncio.wait_for(process.wait(), KILL_SECONDS_MAX)

    def _send(self, number: signal.Signals) -> bool:
        """Return whether there was a process to send it to."""
        if self._process is None or self._process.returncode is not None:
            return False
        try:
            self._process.send_signal(number)
        except ProcessLookupError:
            return False
        return True

    async def _keep(self) -> None:
        while True:
            await self._wanted.wait()
            async with self._launching:
                if not self._wanted.is_set():
                    continue
                self._process = process = await self._launch()
            code = await process.wait()
            if self._wanted.is_set():
                self.ended.append(code)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _launch(self) -> asyncio.subprocess.Process:
        self._daemon.log.parent.mkdir(exist_ok=True)
        self._daemon.pid_file.parent.mkdir(exist_ok=True)
        with self._daemon.log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                env={"PATH": os.environ["PATH"]},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        # From here on the folder's watchdog ends it, should this process be killed.
        self._daemon.record(process.pid)
        return process
