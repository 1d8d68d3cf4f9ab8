"""What must always hold, rule by rule.

Rule 1, nothing lost and nothing twice, is in test_faults.py; rule 7, one bad event stops one entity, in
test_bad_input.py; rule 9, nothing is skipped silently, in test_positions.py.
"""

from collections import defaultdict
from collections.abc import AsyncIterator
from itertools import islice
from typing import Any

import asyncpg
import pytest

from sitelog.projections._database import connect
from sitelog.projections._install import owner_of
from sitelog.streams.settings import DatabaseSettings
from tests.commands import sitelog
from tests.conftest import Services
from tests.lives import Lives
from tests.oracle import TABLES
from tests.rig import Rig, config_values, open_rig, write_config

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kafka")]

EVENTS = 3_000
LOG = """
SELECT log_partition, log_seq, kafka_offset, entity_id, event_id::text, ingest_time
FROM sitelog.event_log
ORDER BY log_partition, log_seq
"""
REFUSED = [
    "UPDATE sitelog.event_log SET entity_id = 'another'",
    "DELETE FROM sitelog.event_log",
    "TRUNCATE sitelog.event_log",
]


@pytest.fixture(scope="module")
async def rig(services: Services, database_template: str) -> AsyncIterator[Rig]:
    """A life of all kinds of events, applied batch by batch; the tests look at what that left."""
    async with open_rig(services, database_template) as rig:
        worker = await rig.worker(batch_records_max=100)
        await rig.ledger.append_all(islice(Lives(1), EVENTS))
        await rig.applied()
        await worker.stop()
        yield rig


@pytest.fixture(scope="module")
async def log(rig: Rig) -> list[Any]:
    rows: list[Any] = await rig.connection.fetch(LOG)
    return rows


def test_rule_2_one_entitys_events_are_applied_in_their_order(rig: Rig, log: list[Any]) -> None:
    appended, applied = defaultdict(list), defaultdict(list)
    for entry in rig.ledger.entries:
        appended[entry.event.entity_id].append(entry.event.event_id)
    for row in log:
        applied[row["entity_id"]].append(row["event_id"])

    assert applied == appended
    assert max(len(events) for events in applied.values()) > 10


@pytest.mark.parametrize("statement", REFUSED, ids=["update", "delete", "truncate"])
async def test_rule_3_the_log_is_append_only_for_the_application_by_its_rights(rig: Rig, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for table event_log"):
        await attempt(rig.settings.database_config.primary, statement)


@pytest.mark.parametrize("statement", REFUSED, ids=["update", "delete", "truncate"])
async def test_rule_3_the_log_is_append_only_for_its_owner_by_a_trigger(rig: Rig, statement: str) -> None:
    with pytest.raises(asyncpg.RaiseError, match=f"append-only: {statement.split(maxsplit=1)[0]} refused"):
        await attempt(owner_of(rig.settings), statement)


async def attempt(who: DatabaseSettings, statement: str) -> None:
    connection = await connect(who)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def test_rule_4_the_log_is_dense_and_in_commit_order(log: list[Any]) -> None:
    partitions = defaultdict(list)
    for row in log:
        partitions[row["log_partition"]].append(row)

    assert len(log) == EVENTS
    assert len(partitions) == 9
    for rows in partitions.values():
        assert [row["log_seq"] for row in rows] == list(range(1, len(rows) + 1))
        for column in ("kafka_offset", "ingest_time"):
            assert [row[column] for row in rows] == sorted(row[column] for row in rows)


async def test_rule_5_replay_gives_the_same_rows(rig: Rig, services: Services) -> None:
    before = await every_row(rig.connection)
    assert all(before.values())
    for table in TABLES:
        await rig.connection.execute(f"DELETE FROM {table}_v1")  # noqa: S608 - a literal of the oracle's
    config = write_config(services, config_values(services, rig.database))

    ran = await sitelog(config, "replay")

    assert (ran.code, ran.err) == (0, "")
    assert await every_row(rig.connection) == before


async def every_row(connection: asyncpg.Connection) -> dict[str, list[Any]]:
    """Return every read model's rows, in key order and with all that the store keeps beside them."""
    return {
        table: await connection.fetch(f"SELECT * FROM {table}_v1 ORDER BY {', '.join(key)}")  # noqa: S608
        for table, key in TABLES.items()
    }
