"""A port before another port: passes bytes on, both ways, until it is told to be slow, silent or gone."""

import asyncio
from contextlib import suppress

LOOPBACK = "127.0.0.1"
CHUNK_BYTES = 65_536


class Pair:
    """One client's connection and ours to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._writers = (client, server)

    def reset(self) -> None:
        """End both without a farewell; what was under way is lost."""
        for writer in self._writers:
            writer.transport.abort()


class Link:
    """What lies between one worker and one server. Faults of different kinds may be on at once."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self.target = target
        self._delay_seconds = 0.0
        self._is_cut = False
        self._sound = asyncio.Event()
        self._sound.set()
        self._pairs: set[Pair] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port)

    async def close(self) -> None:
        """End every connection, and take no more."""
        if self._server is not None:
            self._server.close()
        self.reset()
        self._sound.set()

    # Faults.

    def slow(self, seconds: float) -> None:
        """Hold every chunk back for so long, in each direction; 0 is as fast as it goes."""
        self._delay_seconds = seconds

    def cut(self) -> None:
        """Reset every connection, and each new one."""
        self._is_cut = True
        self.reset()

    def mend(self) -> None:
        """Take connections again."""
        self._is_cut = False

    def silence(self) -> None:
        """Let connections stand, old and new, and pass nothing on: nobody hears of anybody's end either."""
        self._sound.clear()

    def resume(self) -> None:
        """Pass on what was held back, and everything after it."""
        self._sound.set()

    def reset(self) -> None:
        """Reset every connection that there is."""
        for pair in self._pairs:
            pair.reset()

    # Passing on.

    def passes(self, pair: Pair, data: bytes, *, to_server: bool) -> bool:  # noqa: ARG002 - for those that look
        """Look at a chunk that is about to be passed on; False resets the pair instead."""
        return True

    def _pair(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> Pair:
        return Pair(client, server)

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        await self._sound.wait()
        try:
            if self._is_cut:
                raise ConnectionResetError
            from_server, to_server = await asyncio.open_connection(LOOPBACK, self.target)
            if self._is_cut:  # since it was asked for
                to_server.transport.abort()
                raise ConnectionResetError
        except OSError:
            to_client.transport.abort()
            return
        pair = self._pair(to_client, to_server)
        self._pairs.add(pair)
        ways = [
            asyncio.create_task(self._pass_on(pair, from_client, to_server, to_server=True)),
            asyncio.create_task(self._pass_on(pair, from_server, to_client, to_server=False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            self._pairs.discard(pair)
            to_client.close()
            to_server.close()

    async def _pass_on(
        self, pair: Pair, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, to_server: bool
    ) -> None:
        with suppress(ConnectionError):
            while data := await source.read(CHUNK_BYTES):
                if self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds)
                await self._sound.wait()
                if not self.passes(pair, data, to_server=to_server):
                    pair.reset()
                    return
                sink.write(data)
                await sink.drain()
        await self._sound.wait()
