"""The way to Postgres: it can break in the middle of a transaction, and between COMMIT and its answer."""

import asyncio

from tests.chaos.network import Link, Pair
from tests.postgres_requests import Requests

REQUESTS_PASSED_MAX = 8
"""After BEGIN: a worker's transaction has about so many."""


class Session(Pair):
    """A connection, and what will become of it."""

    requests_left: int | None = None
    is_deaf: bool = False

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        super().__init__(client, server)
        self.requests = Requests()


class PostgresLink(Link):
    """Counts what it has broken."""

    def __init__(self, port: int, target: int) -> None:
        super().__init__(port, target)
        self.transactions_cut = 0
        self.commits_unanswered = 0
        self._cuts_left = 0
        self._silences_left = 0
        self._passed = 0

    def cut_transactions(self, count: int) -> None:
        """Reset so many of the next transactions: the first after BEGIN, each later one a request later.

        One that is a single statement is cut before Postgres has it.
        """
        self._cuts_left = count
        self._passed = 0

    def lose_answers(self, count: int) -> None:
        """Reset so many connections whose COMMIT Postgres has done, before the client hears of it."""
        self._silences_left = count

    def passes(self, pair: Pair, data: bytes, *, to_server: bool) -> bool:
        """Look for the beginning and the end of transactions, which asyncpg asks for in plain text."""
        assert isinstance(pair, Session)
        return self._request(pair, data) if to_server else self._answer(pair)

    def _pair(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> Pair:
        return Session(client, server)

    def _request(self, session: Session, data: bytes) -> bool:
        kind = session.requests.kind(data)
        if session.requests_left is not None:
            if session.requests_left == 0 or kind == "commit":
                self.transactions_cut += 1
                return False
            session.requests_left -= 1
        elif self._cuts_left and kind == "write":
            self._cuts_left -= 1
            self.transactions_cut += 1
            return False
        elif self._cuts_left and kind == "begin":
            self._cuts_left -= 1
            session.requests_left = self._passed % REQUESTS_PASSED_MAX
            self._passed += 1
        elif self._silences_left and kind in {"commit", "write"}:
            self._silences_left -= 1
            session.is_deaf = True
        return True

    def _answer(self, session: Session) -> bool:
        self.commits_unanswered += session.is_deaf
        return not session.is_deaf
