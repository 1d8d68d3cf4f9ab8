"""What the health server answers while Postgres says nothing, and what it does with clients that say nothing."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from sitelog.agents import _health
from sitelog.agents._health import HealthServer
from sitelog.agents._metrics import Metrics
from sitelog.agents._progress import Progress


class Silent:
    """Postgres, and asyncpg that goes on waiting for it when it was told to stop."""

    def __init__(self) -> None:
        self.pings = 0
        self.answers = asyncio.Event()

    async def ping(self) -> None:
        self.pings += 1
        try:
            await self.answers.wait()
        except asyncio.CancelledError:
            await self.answers.wait()
            raise


def healthy() -> HealthServer:
    """A server with nothing to complain of."""
    return HealthServer(
        "127.0.0.1",
        0,
        metrics=Metrics("projector", Progress()),
        not_live=list,
        not_ready=list,
        ping=lambda: asyncio.sleep(0),
    )


@pytest.fixture
def postgres() -> Silent:
    return Silent()


@pytest.fixture
async def client(postgres: Silent, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setattr(_health, "PING_SECONDS_MAX", 0.1)
    server = HealthServer(
        "127.0.0.1",
        0,
        metrics=Metrics("projector", Progress()),
        not_live=list,
        not_ready=list,
        ping=postgres.ping,
    )
    await server.on_start()
    host, port = server.address
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=5) as client:
        yield client
    postgres.answers.set()
    await server.on_stop()


async def test_nobody_waits_for_a_silent_postgres_and_it_is_asked_once_at_a_time(
    client: httpx.AsyncClient, postgres: Silent
) -> None:
    for _ in range(2):
        answer, page = await asyncio.gather(client.get("/readyz"), client.get("/metrics"))
        assert (answer.status_code, answer.json()["detail"]) == (503, "Postgres does not answer: TimeoutError")
        assert 'sitelog_ready{consumer="projector"} 0.0' in page.text
    assert postgres.pings == 1


async def test_what_was_asked_before_postgres_answered_again_is_no_answer_for_later(
    client: httpx.AsyncClient, postgres: Silent
) -> None:
    await client.get("/readyz")
    postgres.answers.set()
    assert (await client.get("/readyz")).status_code == 200
    assert postgres.pings == 2


async def test_a_client_that_never_sends_what_it_announced_holds_no_stop_up() -> None:
    server = healthy()
    await server.on_start()
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
    assert b"405" in await reader.readline()
    async with asyncio.timeout(5):
        await server.on_stop()
    writer.close()


async def test_a_connection_on_which_nobody_asks_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_health, "IDLE_SECONDS_MAX", 0.1)
    server = healthy()
    await server.on_start()
    reader, writer = await asyncio.open_connection(*server.address)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()
    await server.on_stop()


async def test_who_asks_while_others_are_answered_takes_nobodys_answer_away() -> None:
    server = healthy()

    async def ask(turns: int) -> list[str]:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await server._problems()

    assert await asyncio.gather(*map(ask, range(20))) == [[]] * 20
