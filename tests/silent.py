"""A server that takes connections, hears its clients out, and never says a word."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sitelog.deploy._ports import LOOPBACK


class Silent:
    """`asked` is set once somebody has said something."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.port = 0

    async def serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            await client.read(1)
            self.asked.set()
            await client.read()
        finally:
            to_client.close()


@asynccontextmanager
async def open_silent() -> AsyncIterator[Silent]:
    """One that listens on a free port while the block runs."""
    silent = Silent()
    server = await asyncio.start_server(silent.serve, LOOPBACK, 0)
    silent.port = server.sockets[0].getsockname()[1]
    try:
        yield silent
    finally:
        server.close()
