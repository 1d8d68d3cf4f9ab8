"""Three brokers and a Postgres: each worker reaches them by ways of its own, which can be broken."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import asyncpg

from sitelog.deploy import kafka as deploy_kafka
from sitelog.deploy._daemon import stop_together
from sitelog.deploy._ports import LOOPBACK, free_port
from sitelog.deploy._server_properties import server_properties
from sitelog.deploy._state import BrokerState, StackState, new_state
from sitelog.deploy.kafka import broker_daemon, start_brokers
from sitelog.deploy.postgres import connect_as_superuser, postgres_daemon, start_postgres
from sitelog.streams.errors import UnavailableError
from tests.chaos.disk import Disk
from tests.chaos.network import Link
from tests.chaos.postgres_link import PostgresLink
from tests.chaos.schedule import BROKERS, SLOTS
from tests.conftest import watched_folder

POSTGRES_STARTS_MAX = 5


@dataclass(frozen=True)
class Ways:
    """How one worker reaches each broker, and Postgres."""

    kafka: tuple[Link, ...]
    postgres: PostgresLink

    @property
    def bootstrap_servers(self) -> list[str]:
        return [f"{LOOPBACK}:{link.port}" for link in self.kafka]


class Cluster:
    """`ways` has an entry for each worker; everybody else connects directly."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = new_state(brokers=BROKERS)
        self.disk = Disk(folder / "disk")
        ports = self.state.ports()

        def another() -> int:
            port = free_port(besides=ports)
            ports.add(port)
            return port

        # The broker listens on the link's target for this worker alone, and says that the link is where it is.
        self.ways = [
            Ways(tuple(Link(another(), another()) for _ in range(BROKERS)), PostgresLink(another(), self.postgres_port))
            for _ in range(SLOTS)
        ]

    @property
    def postgres_port(self) -> int:
        return self.state.postgres_port

    def links(self) -> list[Link]:
        return [link for ways in self.ways for link in (*ways.kafka, ways.postgres)]

    async def start(self) -> None:
        """Start everything; where it can't, UnavailableError says why."""
        for name in ("run", "logs"):
            # Only Postgres's data is on the disk that gets full: pid files and logs are with everybody else's.
            (self.folder / name).mkdir()
            (self.disk.path / name).symlink_to(self.folder / name)
        await asyncio.gather(*(link.open() for link in self.links()))
        await asyncio.gather(self.start_brokers(), self.start_postgres())

    async def connect(self, database: str = "postgres") -> asyncpg.Connection:
        """Open a superuser's connection; the caller closes it."""
        return await connect_as_superuser(self.state, database)

    async def kill_broker(self, number: int) -> None:
        daemon = broker_daemon(self.folder, self.state.brokers[number])
        await asyncio.to_thread(stop_together, [daemon], [(signal.SIGKILL, 20.0)])

    async def start_brokers(self) -> None:
        """Start those that don't run, and wait for all."""
        with patch.object(deploy_kafka, "server_properties", self._server_properties):
            await start_brokers(self.folder, self.state, os.environ, lambda _: None)

    async def kill_postgres(self) -> None:
        await asyncio.to_thread(stop_together, [postgres_daemon(self.disk.path)], [(signal.SIGQUIT, 20.0)])

    async def start_postgres(self) -> None:
        """Start it if it doesn't run, and wait until it answers."""
        for last in (*[False] * (POSTGRES_STARTS_MAX - 1), True):
            try:
                await start_postgres(self.disk.path, self.state, os.environ)
            except UnavailableError:
                if last:  # it may have been ending of a full disk just when it was looked at
                    raise
            else:
                return

    def _server_properties(self, state: StackState, broker: BrokerState, data: Path) -> str:
        usual = dict(line.split("=", 1) for line in server_properties(state, broker, data).splitlines())
        own = {f"WORKER{slot}": ways.kafka[broker.node_id - 1] for slot, ways in enumerate(self.ways)}
        listeners = [f"{name}://{LOOPBACK}:{link.target}" for name, link in own.items()]
        advertised = [f"{name}://{LOOPBACK}:{link.port}" for name, link in own.items()]
        protocols = [f"{name}:PLAINTEXT" for name in own]
        changed = {
            "listeners": [usual["listeners"], *listeners],
            "advertised.listeners": [usual["advertised.listeners"], *advertised],
            "listener.security.protocol.map": [usual["listener.security.protocol.map"], *protocols],
            # For each listener, of which there are five.
            "num.network.threads": ["1"],
        }
        values: dict[str, Any] = usual | {name: ",".join(parts) for name, parts in changed.items()}
        return "".join(f"{name}={value}\n" for name, value in values.items())


@asynccontextmanager
async def open_cluster() -> AsyncIterator[Cluster]:
    """A cluster that runs; its processes and its folder vanish with the block, or with this process."""
    async with AsyncExitStack() as stack:
        cluster = Cluster(stack.enter_context(watched_folder()))
        try:
            await cluster.start()
            yield cluster
        finally:
            for link in cluster.links():
                await link.close()
