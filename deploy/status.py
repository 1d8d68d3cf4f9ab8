"""What of the embedded stack runs, answers and is ready, now."""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sitelog.deploy._daemon import Daemon, Running
from sitelog.deploy._state import StackState, read_state
from sitelog.deploy._supervisor import read_restarts, worker_daemon
from sitelog.deploy._workers import is_ready, worker_name
from sitelog.deploy.kafka import answers, broker_daemon
from sitelog.deploy.postgres import accepts, postgres_daemon

Kind = Literal["kafka", "postgres", "worker"]
State = Literal["up", "busy", "dead", "down"]
_UP = "run `sitelog up`"


@dataclass(frozen=True)
class ServiceStatus:
    """One service. `up` answers or is ready; `busy` runs and doesn't; `dead` ended by itself; `down` is to be so."""

    name: str
    kind: Kind
    state: State
    pid: int | None
    port: int
    uptime_seconds: float | None
    detail: str


async def status(folder: Path) -> list[ServiceStatus] | None:
    """Return every service of the stack in `folder`, None if there never was a stack; asks all at once, within 5 s.

    Raises ConfigError if the state file is damaged.
    """
    state = read_state(folder)
    if state is None:
        return None
    brokers = [_broker(folder, state, index) for index in range(len(state.brokers))]
    workers = [_worker(folder, worker_name(index), port) for index, port in enumerate(state.worker_ports)]
    return list(await asyncio.gather(*brokers, _postgres(folder, state), *workers))


async def _broker(folder: Path, state: StackState, index: int) -> ServiceStatus:
    broker = state.brokers[index]
    daemon = broker_daemon(folder, broker)
    return await _service(daemon, "kafka", broker.port, answers(broker.port))


async def _postgres(folder: Path, state: StackState) -> ServiceStatus:
    return await _service(postgres_daemon(folder), "postgres", state.postgres_port, accepts(state))


async def _worker(folder: Path, name: str, port: int) -> ServiceStatus:
    supervisor, worker = Daemon(folder, name), worker_daemon(folder, name)
    if supervisor.running() is None:
        return await _service(supervisor, "worker", port, is_ready(port))
    restarts = read_restarts(folder, name)
    note = f"restarts: {restarts.count}, last ended with status {restarts.exit_status}"
    noted = [note] if restarts.count else []
    running = worker.running()
    if running is None:
        noted.append(f"isn't running; see {supervisor.log}")
        return ServiceStatus(name, "worker", "busy", None, port, None, "; ".join(noted))
    ready = await is_ready(port)
    if not ready:
        noted.append(f"isn't ready; see {supervisor.log}")
    state: State = "up" if ready else "busy"
    return ServiceStatus(name, "worker", state, running.pid, port, _uptime(running), "; ".join(noted))


async def _service(daemon: Daemon, kind: Kind, port: int, answer: Awaitable[bool]) -> ServiceStatus:
    answered = await answer
    running = daemon.running()
    if running is not None:
        state: State = "up" if answered else "busy"
        detail = "" if answered else f"runs but doesn't answer; see {daemon.log}"
        return ServiceStatus(daemon.name, kind, state, running.pid, port, _uptime(running), detail)
    if daemon.is_expected():
        detail = f"ended by itself or was killed: {_UP}; see {daemon.log}"
        return ServiceStatus(daemon.name, kind, "dead", None, port, None, detail)
    return ServiceStatus(daemon.name, kind, "down", None, port, None, _UP)


def _uptime(running: Running) -> float:
    return time.time() - running.started_at
