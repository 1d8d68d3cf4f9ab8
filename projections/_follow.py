"""Waits for the log to grow: Postgres says so itself, nobody has to ask again and again."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import orjson

from sitelog.projections._look_log import Entry, Stretch, Wanted, between

CHANNEL: Final = "sitelog_position"
"""What is notified with each commit, see `_positions.NOTIFY`."""

SILENCE_SECONDS_MAX: Final = 30.0
"""After so long without news the connection is tried: a network that is gone doesn't say so."""

UNREAD_SECONDS_MAX: Final = 60
"""Postgres gives up who has taken nothing of what waits for so long, being suspended: it keeps all news for its slowest
listener, and when it has no more room for them every commit with news fails."""

LAST: Final = "SELECT max(log_seq) FROM sitelog.event_log WHERE log_partition = $1"


class Bell:
    """Rings when a consumer has moved; however often it does before anybody looks, it is remembered once."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._rung = asyncio.Event()
        self._moved: set[int] = set()

    async def listen(self) -> None:
        """Begin to listen; only a primary can be listened to."""
        self._connection.add_termination_listener(self._lost)
        await self._connection.execute("SELECT set_config('tcp_user_timeout', $1, FALSE)", f"{UNREAD_SECONDS_MAX}s")
        await self._connection.add_listener(CHANNEL, self._heard)

    def _heard(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        self._moved.add(orjson.loads(payload)["log_partition"])
        self._rung.set()

    def _lost(self, _connection: Any) -> None:
        self._rung.set()

    async def moved(self) -> set[int]:
        """Wait for news, and return the log partitions that they are about.

        Raises asyncpg's InterfaceError where the connection was lost.
        """
        while not self._moved:
            try:
                async with asyncio.timeout(SILENCE_SECONDS_MAX):
                    await self._rung.wait()
            except TimeoutError:
                pass
            self._rung.clear()
            if not self._moved:
                await self._connection.execute("SELECT 1")
        moved, self._moved = self._moved, set()
        return moved


async def follow(connection: Any, bell: Bell, parts: Sequence[Stretch], wanted: Wanted) -> AsyncGenerator[Entry]:
    """Yield the wanted events that are applied after the ends of `parts`, for ever.

    Nothing is missed if the bell listened before the ends were looked up.
    """
    places = {part.log_partition: part for part in parts}
    while True:
        for log_partition in await bell.moved() & places.keys():
            part = places[log_partition]
            last = await connection.fetchval(LAST, log_partition) or 0
            part.after_seq, part.last_seq = part.last_seq, max(part.last_seq, last)
            async for entry in between(connection, part, wanted):
                yield entry
