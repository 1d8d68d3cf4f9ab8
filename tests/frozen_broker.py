"""Kafka as in a long pause of its machine: connections stay, and nothing is answered."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sitelog.deploy._daemon import started_daemons


@asynccontextmanager
async def frozen_broker(services: Any) -> AsyncIterator[None]:
    """Kafka hangs, as in a long pause of its machine, until the block ends."""
    [running] = [daemon.running() for daemon in started_daemons(services.folder) if daemon.name.startswith("kafka")]
    os.kill(running.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(running.pid, signal.SIGCONT)
