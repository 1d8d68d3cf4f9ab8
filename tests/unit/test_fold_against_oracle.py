"""Random histories end in the rows that an independent fold of them ends in."""

from collections.abc import Iterable
from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from sitelog.projections._items import Item
from sitelog.projections._merge import Policy
from sitelog.streams._event import Event
from tests.histories import Happening, Unreadable, histories, strangers
from tests.memory import PARTITIONS, MemoryStore, item_of, unreadable
from tests.oracle import TABLES, Oracle
from tests.read_models import OURS

POLICIES = st.sampled_from(get_args(Policy))


def recorded(one: Happening, offset: int) -> Item:
    return unreadable(one.entity_id, offset) if isinstance(one, Unreadable) else item_of(one, offset)


def folded(history: Iterable[Happening], policy: Policy, sizes: Iterable[int]) -> MemoryStore:
    """Take the history, per topic, in batches of these sizes; what is left over is one batch more."""
    store = MemoryStore(OURS, policy)
    for topic in PARTITIONS:
        items = [recorded(one, offset) for offset, one in enumerate(history) if one.topic == topic]
        for size in sizes:
            store.take(items[:size], topic)
            items = items[size:]
        store.take(items, topic)
    return store


def told(history: Iterable[Happening], policy: Policy) -> Oracle:
    oracle = Oracle(policy)
    for offset, one in enumerate(history):
        if isinstance(one, Unreadable):
            oracle.stop(one.entity_id)
        else:
            oracle.apply(one, append_time=item_of(one, offset).append_time)
    return oracle


def rows_of(store: MemoryStore, oracle: Oracle) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both sides' rows with the columns that the oracle knows."""
    expected = {
        table: {tuple(row[column] for column in TABLES[table]): row for row in rows}
        for table, rows in oracle.tables().items()
    }
    found = {
        table: {key: {column: row[column] for column in expected[table].get(key, row)} for key, row in rows.items()}
        for table, rows in store.tables().items()
    }
    return expected, found


def conflicts_of(store: MemoryStore) -> list[tuple[str, ...]]:
    return sorted((row[4], row[2], row[5], row[6], row[9]) for taken in store.taken for row in taken.conflicts)


def check(history: list[Happening], policy: Policy, sizes: list[int]) -> None:
    oracle = told(history, policy)
    store = folded(history, policy, sizes)
    expected, found = rows_of(store, oracle)
    assert found == expected
    assert sorted(event_id for *_, event_id in logged(store)) == sorted(oracle.applied)
    assert sum(taken.duplicates for taken in store.taken) == oracle.duplicates
    assert conflicts_of(store) == sorted(oracle.conflicts)


@settings(max_examples=150, deadline=None)
@given(histories(), POLICIES, st.lists(st.integers(0, 6), max_size=6))
def test_histories_end_in_the_rows_that_an_independent_fold_ends_in(
    history: list[Happening], policy: Policy, sizes: list[int]
) -> None:
    check(history, policy, sizes)


@settings(max_examples=60, deadline=None)
@given(st.lists(strangers(), max_size=12), POLICIES)
def test_so_do_events_with_any_values_that_their_schemas_allow(history: list[Event], policy: Policy) -> None:
    check(list({event.event_id: event for event in history}.values()), policy, [])


@settings(max_examples=150, deadline=None)
@given(histories(), POLICIES, st.lists(st.integers(0, 6), max_size=8))
def test_one_batch_or_many_end_in_the_same_rows_log_and_conflicts(
    history: list[Happening], policy: Policy, sizes: list[int]
) -> None:
    one, many = folded(history, policy, []), folded(history, policy, sizes)
    assert many.tables() == one.tables()
    assert logged(many) == logged(one)
    assert conflicts_of(many) == conflicts_of(one)
    assert {topic: lane.stopped() for topic, lane in many.lanes.items()} == {
        topic: lane.stopped() for topic, lane in one.lanes.items()
    }


def logged(store: MemoryStore) -> list[tuple[Any, ...]]:
    return sorted(
        (item.entity_id, log_seq, item.offset, item.event.event_id if item.event else "")
        for taken in store.taken
        for log_seq, item in taken.log
    )
