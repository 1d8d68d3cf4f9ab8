"""What Postgres ends because it took too long is tried again, whichever of a worker's timeouts it was."""

import asyncpg
import pytest

from sitelog.projections._database import connect, transient
from sitelog.streams.settings import Settings, WorkerSettings

pytestmark = pytest.mark.services


@pytest.mark.parametrize("setting", ["statement_timeout", "transaction_timeout"])
async def test_what_took_too_long_is_tried_again(database: Settings, setting: str) -> None:
    connection = await connect(database.database_config.primary, worker=WorkerSettings())
    await connection.execute("SELECT set_config($1, '100ms', FALSE)", setting)
    await connection.execute("BEGIN")

    with pytest.raises(asyncpg.PostgresError) as ended:
        await connection.execute("SELECT pg_sleep(5)")

    connection.terminate()
    assert transient(ended.value), type(ended.value)
