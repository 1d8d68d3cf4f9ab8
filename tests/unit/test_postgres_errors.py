"""What a person is told when Postgres fails, and when it isn't Postgres that failed."""

import asyncpg
import pytest

from sitelog.projections._database import refusal
from sitelog.streams.errors import UnavailableError
from sitelog.streams.settings import DatabaseSettings

DATABASE = DatabaseSettings(host="127.0.0.1", port=5432, database="sitelog", username="owner")
WHERE = "Postgres at 127.0.0.1:5432, database sitelog, user owner"


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError("no"),
        TimeoutError("no"),
        asyncpg.ConnectionDoesNotExistError("no"),
        asyncpg.InterfaceError("no"),
        asyncpg.AdminShutdownError("no"),
        asyncpg.CannotConnectNowError("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whether_postgres_runs_is_asked_where_there_is_no_connection(error: Exception) -> None:
    told = refusal(DATABASE, error)
    assert isinstance(told, UnavailableError)
    assert str(told) == f"{WHERE} can't be reached: no. Is it running?"


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.DiskFullError("full"),
        asyncpg.LockNotAvailableError("full"),
        asyncpg.TooManyConnectionsError("full"),
        asyncpg.QueryCanceledError("full"),
        asyncpg.ReadOnlySQLTransactionError("full"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_postgres_itself_answers_is_told_as_it_is(error: Exception) -> None:
    told = refusal(DATABASE, error)
    assert isinstance(told, UnavailableError)
    assert str(told) == f"{WHERE} failed: full. Try again"


def test_an_error_that_says_nothing_is_told_by_its_name() -> None:
    assert str(refusal(DATABASE, TimeoutError())) == f"{WHERE} can't be reached: TimeoutError. Is it running?"
