"""Proxies before Postgres and Kafka that hold back, lose and go away at the worst moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sitelog.deploy._ports import LOOPBACK
from tests.postgres_requests import DONE, Requests

CHUNK_BYTES = 65_536


class PostgresProxy:
    """Passes bytes on, both ways, until it is told to do something nasty."""

    def __init__(self, postgres_port: int) -> None:
        self.port = 0
        self.commits_lost = 0
        self.held = asyncio.Event()
        """Set when a transaction is being held back."""
        self._postgres_port = postgres_port
        self._commits_to_lose = 0
        self._gate = asyncio.Event()
        self._gate.set()
        self._gone = False
        self._writers: set[asyncio.StreamWriter] = set()

    def lose_commits(self, count: int) -> None:
        """Cut the connections of the next commits, when Postgres has done them and before the client hears of it."""
        self._commits_to_lose += count

    async def has_lost_all(self) -> bool:
        """Tell whether as many answers are lost as should be."""
        return self._commits_to_lose == 0

    def hold(self) -> None:
        """Hold back every transaction from now on: its BEGIN, or the one statement that it is, and what follows."""
        self._gate.clear()

    def release(self) -> None:
        self._gate.set()

    def vanish(self) -> None:
        """Cut every connection, and take no other."""
        self._gone = True
        for writer in self._writers:
            writer.close()

    def come_back(self) -> None:
        """Take connections again."""
        self._gone = False

    async def serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if self._gone:
            to_client.close()
            return
        try:
            server, to_server = await asyncio.open_connection(LOOPBACK, self._postgres_port)
        except OSError:
            to_client.close()
            return
        answers = asyncio.create_task(pass_on(server, to_client))
        self._writers |= {to_client, to_server}
        requests = Requests()
        try:
            while request := await client.read(CHUNK_BYTES):
                kind = requests.kind(request)
                if kind in {"begin", "write"} and not self._gate.is_set():
                    self.held.set()
                    await self._gate.wait()
                loses = kind in {"commit", "write"} and self._commits_to_lose > 0
                if loses:
                    self._commits_to_lose -= 1
                    answers.cancel()
                    await asyncio.wait({answers})
                to_server.write(request)
                await to_server.drain()
                if loses:
                    assert b"SERROR" not in await server.readuntil(DONE)
                    self.commits_lost += 1
                    return
        except ConnectionError:
            return  # one side is gone, so the other one goes too
        finally:
            answers.cancel()
            to_client.close()
            to_server.close()


async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Pass bytes on until one side is gone, then close the other."""
    with suppress(ConnectionError):
        while data := await source.read(CHUNK_BYTES):
            target.write(data)
            await target.drain()
    target.close()


@asynccontextmanager
async def open_proxy(postgres_port: int) -> AsyncIterator[PostgresProxy]:
    """A proxy that listens on a free port while the block runs."""
    proxy = PostgresProxy(postgres_port)
    server = await asyncio.start_server(proxy.serve, LOOPBACK, 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        proxy.release()
        server.close()


@asynccontextmanager
async def open_for_connections(port: int, number: int) -> AsyncIterator[int]:
    """A port that leads to `port` for the first clients, so many, and is closed for all later ones."""
    left = number

    async def serve(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        nonlocal left
        left -= 1
        if not left:
            server.close()
        there, to_there = await asyncio.open_connection(LOOPBACK, port)
        await asyncio.gather(pass_on(client, to_there), pass_on(there, to_client))

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
