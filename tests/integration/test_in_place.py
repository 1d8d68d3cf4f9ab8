"""Many rows are changed where they were found; whoever moves one meanwhile costs time, and no row."""

from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import pytest

from sitelog.projections._database import connect
from sitelog.projections._projection import Key
from sitelog.projections._stored import At, Stored
from sitelog.projections._table import BULK_ROWS, Table
from sitelog.projections.customer_sites import customer_sites
from sitelog.streams.settings import Settings

pytestmark = pytest.mark.services

APPENDED: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOME, ELSEWHERE = 1, 2
"""Log partitions."""
KEYS: Final[list[Key]] = [(f"site-{number:04}",) for number in range(BULK_ROWS + 50)]
INDEX: Final = customer_sites.index
CREATED: Final = At(10, APPENDED)
CHANGED: Final = At(11, APPENDED + timedelta(seconds=1))


def site(key: Key) -> Stored:
    values: list[Any] = [None] * len(customer_sites.columns)
    values[INDEX["site_id"]] = key[0]
    values[INDEX["site_name"]] = f"Name of {key[0]}"
    values[INDEX["latitude"]] = 39.25
    values[INDEX["operating_hours"]] = '{"monday": null}'
    values[INDEX["created_at"]] = APPENDED
    return Stored(values, 1, {}, CREATED)


class Sites:
    """The table with a row for each key, and what was said to Postgres since the rows were loaded."""

    def __init__(self, connection: asyncpg.Connection, other: asyncpg.Connection) -> None:
        self.connection = connection
        self.other = other
        self.table = Table(customer_sites)
        self.rows: dict[Key, Stored] = {}
        self.said: list[str] = []

    async def load(self) -> None:
        """Write the rows, and load them again."""
        self.rows = {key: site(key) for key in KEYS}
        await self.write()
        self.rows = await self.table.load(self.connection, KEYS)
        self.connection.add_query_logger(lambda record: self.said.append(record.query))

    async def write(self, keys: Iterable[Key] = KEYS, *, log_partition: int = HOME) -> None:
        async with self.connection.transaction():
            await self.table.write(self.connection, [(key, log_partition, self.rows[key]) for key in keys])

    async def written(self) -> dict[Key, dict[str, Any]]:
        columns = [*customer_sites.columns, "version", "field_versions", "updated_at", "log_partition", "log_seq"]
        rows = await self.connection.fetch(f"SELECT {', '.join(columns)} FROM {self.table.name}")  # noqa: S608
        return {(row["site_id"],): dict(row) for row in rows}

    @property
    def looked_up_keys(self) -> bool:
        return any("ON CONFLICT" in query for query in self.said)


@pytest.fixture
async def sites(database: Settings) -> AsyncIterator[Sites]:
    connection = await connect(database.database_config.primary)
    other = await connect(database.database_config.primary)
    try:
        sites = Sites(connection, other)
        await sites.load()
        yield sites
    finally:
        await connection.close()
        await other.close()


def named(rows: dict[Key, Stored], name: str = "New", at: At = CHANGED) -> None:
    for stored in rows.values():
        stored.change({INDEX["site_name"]: name}, ("name",), at)


async def test_each_row_has_its_own_changes_and_everything_else_as_it_was(sites: Sites) -> None:
    before = await sites.written()
    changes: list[tuple[dict[str, Any], str]] = [
        ({"site_name": "New"}, "name"),
        ({"latitude": None, "longitude": -0.5}, "location_coordinates"),
        ({"operating_hours": '{"monday": "08:00"}'}, "operating_hours"),
        ({}, ""),
    ]
    expected = {}
    for number, (key, stored) in enumerate(sorted(sites.rows.items())):
        change, field = changes[number % len(changes)]
        if change:
            stored.change({INDEX[column]: value for column, value in change.items()}, (field,), CHANGED)
        else:
            sites.rows[key] = stored.counted(CHANGED)
        kept = {"version": 2, "updated_at": CHANGED.append_time, "log_seq": CHANGED.log_seq}
        versions = f'{{"{field}":2}}' if change else None
        expected[key] = {**before[key], **change, **kept, "field_versions": versions}
    await sites.write()
    assert await sites.written() == expected
    assert not sites.looked_up_keys


async def test_a_row_that_somebody_has_moved_meanwhile_is_written_by_its_key(sites: Sites) -> None:
    moved = KEYS[7][0]
    await sites.other.execute(f"UPDATE {sites.table.name} SET city = 'Lima' WHERE site_id = $1", moved)  # noqa: S608
    named(sites.rows)
    await sites.write()
    assert {row["site_name"] for row in (await sites.written()).values()} == {"New"}
    assert sites.looked_up_keys


async def test_new_rows_beside_changed_ones_are_written_too(sites: Sites) -> None:
    named(sites.rows)
    new = {(f"new-{number}",): site((f"new-{number}",)) for number in range(BULK_ROWS)}
    sites.rows |= new
    await sites.write(sites.rows)
    names = {key: row["site_name"] for key, row in (await sites.written()).items()}
    assert names == dict.fromkeys(KEYS, "New") | {key: f"Name of {key[0]}" for key in new}


async def test_a_place_that_is_another_rows_by_now_is_not_written_to(sites: Sites) -> None:
    one, another = sites.rows[KEYS[0]], sites.rows[KEYS[1]]
    one.ctid, another.ctid = another.ctid, one.ctid
    named(sites.rows)
    one.change({INDEX["city"]: "Lima"}, ("address",), CHANGED)
    await sites.write()
    cities = {key: row["city"] for key, row in (await sites.written()).items()}
    assert cities == dict.fromkeys(KEYS) | {KEYS[0]: "Lima"}


async def test_a_row_never_goes_back_in_its_log(sites: Sites) -> None:
    before = await sites.written()
    named(sites.rows, at=CREATED)
    await sites.write()
    assert await sites.written() == before


async def test_another_partitions_rows_are_refused(sites: Sites) -> None:
    named(sites.rows)
    with pytest.raises(asyncpg.NotNullViolationError, match="log_partition"):
        await sites.write(log_partition=ELSEWHERE)


async def test_few_rows_go_by_their_keys(sites: Sites) -> None:
    named(sites.rows)
    await sites.write(KEYS[: BULK_ROWS - 1])
    names = [row["site_name"] for row in (await sites.written()).values()]
    assert names.count("New") == BULK_ROWS - 1
    assert not any("UPDATE public." in query for query in sites.said)
