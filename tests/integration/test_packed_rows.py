"""Rows as bytes, held against real Postgres: what asyncpg would write, and what `record_send` gives."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sitelog.projections._binary import BEGIN, CODECS, END
from sitelog.projections._columns import POSTGRES_TYPES
from sitelog.projections._database import connect
from sitelog.projections._packed import RowFormat
from sitelog.streams.settings import Settings

pytestmark = pytest.mark.services

COLUMNS: Final = {f"c{number}": kind for number, kind in enumerate(CODECS)}
FORM: Final = RowFormat(COLUMNS)

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
FINITE = st.decimals(allow_nan=False, allow_infinity=False, places=None, min_value=-(10**30), max_value=10**30)
STRATEGIES: Final[dict[str, st.SearchStrategy[Any]]] = {
    "text": TEXTS,
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "double precision": st.floats(allow_nan=False),
    "boolean": st.booleans(),
    "timestamptz": st.datetimes(timezones=st.just(UTC))
    | st.sampled_from([datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]),
    "date": st.dates(),
    "numeric": FINITE | st.sampled_from([Decimal("Infinity"), Decimal("-Infinity"), Decimal("0.00"), Decimal("1E+20")]),
    "jsonb": st.integers().map(str) | st.just('{"a": [1, null]}'),
}
VALUES = st.tuples(*(st.none() | STRATEGIES[kind] for kind in COLUMNS.values())).map(list)

of_one_table = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)


class Table:
    """A table with one column of each type."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection

    async def record_written_by_copy(self, parts: list[bytes]) -> bytes:
        """Write a row of packed values, and return the record that comes back."""
        await self.connection.execute("TRUNCATE packed")
        row = BEGIN + len(parts).to_bytes(2) + b"".join(parts) + END

        async def source() -> AsyncIterator[bytes]:
            yield row

        await self.connection.copy_to_table("packed", source=source(), columns=list(COLUMNS), format="binary")
        return await self._record()

    async def record_written_by_asyncpg(self, values: list[Any]) -> bytes:
        await self.connection.execute("TRUNCATE packed")
        places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
        await self.connection.execute(f"INSERT INTO packed VALUES ({places})", *values)  # noqa: S608 - $1, $2, …
        return await self._record()

    async def _record(self) -> bytes:
        record: bytes = await self.connection.fetchval("SELECT record_send(ROW(p.*)) FROM packed AS p")
        return record


@pytest.fixture
async def table(database: Settings) -> AsyncIterator[Table]:
    connection = await connect(database.database_config.primary)
    try:
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        await connection.execute(f"CREATE TEMPORARY TABLE packed ({columns})")
        yield Table(connection)
    finally:
        await connection.close()


def test_every_type_that_a_row_may_have_is_known() -> None:
    assert CODECS.keys() == set(POSTGRES_TYPES.values()) == STRATEGIES.keys()


@given(values=VALUES)
@of_one_table
async def test_postgres_has_what_asyncpg_would_have_written(table: Table, values: list[Any]) -> None:
    record = await table.record_written_by_copy(FORM.packed(values))
    assert record == await table.record_written_by_asyncpg(values)


@given(values=VALUES)
@of_one_table
async def test_every_value_comes_back(table: Table, values: list[Any]) -> None:
    record = await table.record_written_by_copy(FORM.packed(values))
    expected = [as_stored(kind, value) for kind, value in zip(COLUMNS.values(), values, strict=True)]
    assert FORM.values(record) == expected
    assert [FORM.value(record, index) for index in range(len(COLUMNS))] == expected


@given(before=VALUES, after=VALUES, changed=st.sets(st.integers(0, len(COLUMNS) - 1)))
@of_one_table
async def test_a_changed_record_has_the_new_values_and_the_others_as_they_were(
    table: Table, before: list[Any], after: list[Any], changed: set[int]
) -> None:
    record = await table.record_written_by_copy(FORM.packed(before))
    again = await table.record_written_by_copy(FORM.changed(record, {index: after[index] for index in changed}))
    mixed = [after[index] if index in changed else value for index, value in enumerate(before)]
    assert again == await table.record_written_by_asyncpg(mixed)


def as_stored(kind: str, value: Any) -> Any:
    """The value as Postgres gives it back: it writes JSON in its own way."""
    return value if value is None or kind != "jsonb" else value.replace('{"a":[1,null]}', '{"a": [1, null]}')
