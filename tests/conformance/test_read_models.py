"""What every read model must hold, a new one by its existing: this file names none of them."""

import copy
from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import Any

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sitelog.agents.replay import replay
from sitelog.projections._columns import POSTGRES_TYPES
from sitelog.projections._compare import compare_sql
from sitelog.projections._database import connect
from sitelog.projections._install import install, owner_of
from sitelog.projections._projection import BOOKKEEPING, NAME_CHARACTERS_MAX, NEXT, Handler, Projection
from sitelog.projections._registry import Plan
from sitelog.projections._switch import create_fresh
from sitelog.projections._table import Table
from sitelog.streams._event import Event
from sitelog.streams.events import SiteValues
from sitelog.streams.examples import example
from sitelog.streams.settings import Settings
from tests.event_strategies import events
from tests.histories import Happening, Unreadable, histories
from tests.lives import Lives
from tests.memory import PARTITIONS, MemoryStore, item_of, unreadable
from tests.read_models import EVERY, EXAMPLE, OPEN_SITES
from tests.written import open_log

RELATIONS = """
SELECT relname, oid, pg_relation_filenode(oid)
FROM pg_class
WHERE relnamespace = ANY (ARRAY['public', 'sitelog', 'integration']::regnamespace[]) AND relkind IN ('r', 'v', 'i')
"""

each = pytest.mark.parametrize("projection", EVERY.projections, ids=lambda projection: projection.name)


@each
def test_a_read_model_is_called_like_its_file_and_nobody_else(projection: Projection[Any]) -> None:
    file = EXAMPLE if projection is OPEN_SITES else EXAMPLE.parents[2] / "projections" / f"{projection.name}.py"
    assert file.is_file()
    assert projection.name == file.stem
    assert [one.name for one in EVERY.projections].count(projection.name) == 1


@each
def test_its_key_begins_with_the_entity_that_each_of_its_events_is_about(projection: Projection[Any]) -> None:
    assert projection.handlers
    for event, handler in projection.handlers.items():
        assert event.key_field == projection.key[0]
        one = example(event.event_type)
        key = handler.key(one)
        assert key is None or key[0] == one.entity_id


@each
def test_its_columns_have_types_and_its_key_is_never_null(projection: Projection[Any]) -> None:
    assert {kind for kind, _ in projection.columns.values()} <= set(POSTGRES_TYPES.values())
    assert not [column for column in projection.key if projection.columns[column][1]]


@each
def test_its_names_are_short_enough_for_postgres_while_it_is_replayed(projection: Projection[Any]) -> None:
    fresh = Table(projection, NEXT)
    names = [fresh.name, f"{fresh.name}_pkey", *fresh.index_names]
    assert [name for name in names if len(name) > NAME_CHARACTERS_MAX] == []


class Twice:
    """Calls each handler twice, sees that it gives the same and leaves what it was given alone, and counts."""

    def __init__(self, planned: Plan) -> None:
        self.calls: Counter[str] = Counter()
        handlers = {event: tuple(map(self._watched, handlers)) for event, handlers in planned.handlers.items()}
        self.plan = Plan(planned.projections, handlers)

    def _watched(self, handler: Handler) -> Handler:
        def fold(*args: Any) -> Any:
            self.calls[name_of(handler)] += 1
            before = copy.deepcopy(args)
            first, second = handler.fold(*args), handler.fold(*args)
            assert first == second
            assert args == before
            return first

        return replace(handler, fold=fold)


def name_of(handler: Handler) -> str:
    return f"{handler.projection.name}: {handler.fold.__name__}"


def test_its_functions_are_pure_and_a_life_reaches_each_of_them() -> None:
    twice = Twice(EVERY)
    store = MemoryStore(twice.plan)
    created = example("site_created")
    fields = list(SiteValues.model_fields)
    whole = example(
        "site_updated", changed_fields=fields, old_values=None, new_values=created.model_dump()["site_data"]
    )
    for offset, event in enumerate([created, whole, *islice(Lives(4, sites=5, territories=2), 600)]):
        store.take([item_of(event, offset)], event.topic)
    written = {name_of(h) for handlers in EVERY.handlers.values() for h in handlers if h.kind != "merges"}
    assert twice.calls.keys() == written
    assert not [row for taken in store.taken for row in taken.parked.values()]


@settings(max_examples=40, deadline=None)
@given(st.lists(events(), max_size=3), histories())
def test_its_functions_take_whatever_a_schema_allows(anything: list[Event], history: list[Happening]) -> None:
    store = MemoryStore(Twice(EVERY).plan)
    for offset, one in enumerate([*anything, *history]):
        item = unreadable(one.entity_id, offset) if isinstance(one, Unreadable) else item_of(one, offset)
        store.take([item], one.topic)
    assert not [row for taken in store.taken for row in taken.parked.values() if row.reason == "fold_failed"]


def tables_of(history: list[Happening], sizes: list[int]) -> dict[str, Any]:
    store = MemoryStore(EVERY)
    for topic in PARTITIONS:
        items = [
            unreadable(one.entity_id, offset) if isinstance(one, Unreadable) else item_of(one, offset)
            for offset, one in enumerate(history)
            if one.topic == topic
        ]
        for size in [*sizes, len(items)]:
            store.take(items[:size], topic)
            items = items[size:]
    return store.tables()


@settings(max_examples=50, deadline=None)
@given(histories(), st.lists(st.integers(0, 6), max_size=8))
def test_one_batch_or_many_make_the_same_rows(history: list[Happening], sizes: list[int]) -> None:
    assert tables_of(history, sizes) == tables_of(history, [])


@pytest.fixture
async def prepared(database: Settings) -> Any:
    """Settings of a database that has every read model's table, and an owner's connection to it."""
    await install(database, EVERY.projections)
    connection = await connect(owner_of(database))
    yield database, connection
    await connection.close()


@pytest.mark.services
@each
async def test_postgres_takes_every_statement(prepared: tuple[Settings, Any], projection: Projection[Any]) -> None:
    _, connection = prepared
    live = Table(projection)
    await create_fresh(connection, [live])
    for table in (live, Table(projection, NEXT)):
        await connection.execute(table.stage_sql)
        for sql in (table.load_sql, table.upsert.sql, table.merge_sql, table.delete_sql, table.view_sql):
            await connection.prepare(sql)
    await connection.prepare(compare_sql(live))
    shown = await connection.fetch("SELECT * FROM information_schema.columns WHERE table_name = $1", projection.name)
    assert [row["column_name"] for row in shown] == [
        *projection.columns,
        *(column for column in BOOKKEEPING if column != "field_versions"),
    ]


@pytest.mark.services
async def test_a_replay_makes_the_same_rows_and_so_do_batches_of_any_size(prepared: tuple[Settings, Any]) -> None:
    database, connection = prepared
    async with open_log(database, EVERY) as log:
        await log.write(islice(Lives(1, sites=20), 600), sizes=[1, 2, 3, 50, 7])
        assert log.oracle.conflicts
    report = await replay(database, EVERY, verify=True)
    assert report.differences == ()
    assert all(report.rows.values()), report.rows
    assert report.events == len(log.oracle.applied)
    before = await contents(connection, EVERY)
    await replay(database, EVERY)
    assert await contents(connection, EVERY) == before


@pytest.mark.services
async def test_what_is_sent_twice_changes_nothing(prepared: tuple[Settings, Any]) -> None:
    database, connection = prepared
    life = list(islice(Lives(2, sites=10), 200))
    async with open_log(database, EVERY) as log:
        await log.write(life)
        before = await contents(connection, EVERY)
        await log.write(life, sizes=[3, 50])
        assert log.oracle.duplicates == len(life)
    assert await contents(connection, EVERY) == before


@pytest.mark.services
@each
async def test_its_rebuilding_touches_nothing_else(prepared: tuple[Settings, Any], projection: Projection[Any]) -> None:
    database, connection = prepared
    async with open_log(database, EVERY) as log:
        await log.write(islice(Lives(3, sites=5), 100))
    everything = await contents(connection, EVERY)
    before = await relations(connection)
    await replay(database, EVERY, [projection.name])
    after = await relations(connection)
    assert {name for name in before if before[name] != after.get(name)} <= {projection.table} | {
        name for name in before if name.startswith(f"{projection.table}_")
    }
    assert after.keys() == before.keys()
    assert await contents(connection, EVERY) == everything


async def contents(connection: asyncpg.Connection, planned: Plan) -> dict[str, list[str]]:
    """Every row of every read model as text, with all that the store keeps."""
    return {
        projection.name: [
            row[0]
            for row in await connection.fetch(f"SELECT t::text FROM {projection.table} AS t ORDER BY t::text")  # noqa: S608
        ]
        for projection in planned.projections
    }


async def relations(connection: asyncpg.Connection) -> dict[str, tuple[int, int]]:
    """Every table, view and index of the database by name: its identity, and that of its storage."""
    rows = await connection.fetch(RELATIONS)
    return {row[0]: (row[1], row[2]) for row in rows}
