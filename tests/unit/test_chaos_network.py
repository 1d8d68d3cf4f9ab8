"""The links between workers and servers break as they say, and heal."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from sitelog.deploy._ports import LOOPBACK, free_port
from tests.chaos.network import Link
from tests.chaos.postgres_link import PostgresLink
from tests.postgres_requests import BEGIN, COMMIT

SECONDS_MAX = 10.0
MOMENT = 0.1
INSERT = b"Q\x00INSERT\x00"
# As asyncpg prepares a statement and executes it.
PREPARE = b"P\x00\x00\x00\x40__asyncpg_stmt_7__\x00\nWITH held AS ("
WRITE = b"B\x00\x00\x00\x40\x00__asyncpg_stmt_7__\x00\x00\x01"
OTHER = b"B\x00\x00\x00\x40\x00__asyncpg_stmt_8__\x00\x00\x01"


@asynccontextmanager
async def open_link(
    make: Callable[[int, int], Link], over: Callable[[], None] = lambda: None
) -> AsyncIterator[tuple[Link, list[bytes]]]:
    """A link to a server that repeats whatever it is told; the list is what it was told. `over`: a connection ended."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1_000):
            heard.append(data)
            writer.write(data)
        over()
        writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    target = server.sockets[0].getsockname()[1]
    link = make(free_port(besides={target}), target)
    await link.open()
    try:
        async with asyncio.timeout(SECONDS_MAX):
            yield link, heard
    finally:
        await link.close()
        server.close()


class Client:
    """Somebody who uses the link, and closes whatever is left open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, what: bytes) -> bytes:
        """Return the answer; nothing if the connection is reset instead."""
        try:
            self._writer.write(what)
            answer = await self._reader.read(1_000)
        except ConnectionError:
            answer = b""
        if not answer:
            self._writer.close()
        return answer

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """End without a farewell, as a machine does whose process was killed."""
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


async def connect(link: Link) -> Client:
    return Client(*await asyncio.open_connection(LOOPBACK, link.port))


async def test_a_sound_link_passes_everything_on_both_ways() -> None:
    async with open_link(Link) as (link, heard):
        client = await connect(link)
        assert await client.ask(b"one") == b"one"
        client.close()
    assert heard == [b"one"]


async def test_a_cut_link_resets_old_and_new_connections_until_it_is_mended() -> None:
    async with open_link(Link) as (link, heard):
        old = await connect(link)
        await old.ask(b"one")
        link.cut()
        assert await old.ask(b"two") == b""
        assert await (await connect(link)).ask(b"three") == b""
        link.mend()
        new = await connect(link)
        assert await new.ask(b"four") == b"four"
        new.close()
    assert heard == [b"one", b"four"]


async def test_a_silent_link_stands_and_delivers_later_what_was_sent_meanwhile() -> None:
    async with open_link(Link) as (link, heard):
        old = await connect(link)
        await old.ask(b"one")
        link.silence()
        new = await connect(link)
        asking = [asyncio.create_task(client.ask(b"two")) for client in (old, new)]
        done, _ = await asyncio.wait(asking, timeout=MOMENT)
        assert not done
        assert heard == [b"one"]
        link.resume()
        assert await asyncio.gather(*asking) == [b"two", b"two"]
        old.close()
        new.close()


async def test_a_silent_link_tells_nobody_of_a_reset_either_before_it_is_sound_again() -> None:
    over = asyncio.Event()
    async with open_link(Link, over.set) as (link, _):
        client = await connect(link)
        await client.ask(b"one")
        link.silence()
        client.reset()
        await asyncio.sleep(MOMENT)
        assert not over.is_set()
        link.resume()
        await over.wait()


async def test_a_connection_that_is_being_made_when_the_link_is_cut_is_reset_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_link(Link) as (link, heard):
        link.silence()
        client = await connect(link)
        connecting = asyncio.open_connection

        async def cut_meanwhile(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            made = await connecting(host, port)
            link.cut()
            return made

        monkeypatch.setattr(asyncio, "open_connection", cut_meanwhile)
        link.resume()
        assert await client.ask(b"one") == b""
    assert heard == []


async def test_a_slow_link_takes_its_time_in_each_direction() -> None:
    async with open_link(Link) as (link, _):
        client = await connect(link)
        link.slow(MOMENT)
        since = asyncio.get_running_loop().time()
        assert await client.ask(b"one") == b"one"
        assert asyncio.get_running_loop().time() - since >= 2 * MOMENT
        client.close()


@pytest.mark.parametrize("passed", [0, 1])
async def test_a_transaction_is_cut_after_so_many_requests(passed: int) -> None:
    async with open_link(PostgresLink) as (link, heard):
        assert isinstance(link, PostgresLink)
        link.cut_transactions(2)
        first = await connect(link)
        assert await first.ask(BEGIN) == BEGIN
        assert await first.ask(INSERT) == b""
        second = await connect(link)
        assert await second.ask(BEGIN) == BEGIN
        assert await second.ask(INSERT) == INSERT
        assert await second.ask(COMMIT if passed else INSERT) == b""
        third = await connect(link)
        for request in (BEGIN, INSERT, COMMIT):
            assert await third.ask(request) == request
        third.close()
        assert link.transactions_cut == 2
    assert heard == [BEGIN, BEGIN, INSERT, BEGIN, INSERT, COMMIT]


async def test_an_unanswered_commit_reaches_the_server_and_its_answer_nobody() -> None:
    async with open_link(PostgresLink) as (link, heard):
        assert isinstance(link, PostgresLink)
        link.lose_answers(1)
        first = await connect(link)
        assert await first.ask(BEGIN) == BEGIN
        assert await first.ask(COMMIT) == b""
        second = await connect(link)
        assert await second.ask(COMMIT) == COMMIT
        second.close()
        assert link.commits_unanswered == 1
    assert heard == [BEGIN, COMMIT, COMMIT]


async def test_a_statement_that_is_a_transaction_by_itself_is_cut_before_it_and_answered_never() -> None:
    async with open_link(PostgresLink) as (link, heard):
        assert isinstance(link, PostgresLink)
        for begin, reaches in ((link.cut_transactions, False), (link.lose_answers, True)):
            client = await connect(link)
            for request in (PREPARE, OTHER, WRITE):
                assert await client.ask(request) == request
            begin(1)
            assert await client.ask(OTHER) == OTHER
            assert await client.ask(WRITE) == b""
            assert heard[3:] == ([OTHER, WRITE] if reaches else [OTHER])
            heard.clear()
        assert (link.transactions_cut, link.commits_unanswered) == (1, 1)
