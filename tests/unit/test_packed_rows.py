"""A row as it was loaded: what is asked for becomes objects, what was changed is packed, all else stays bytes."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

import pytest

from sitelog.projections._packed import RowFormat, UnfitValueError
from sitelog.projections._stored import At, Stored
from tests.memory import record_of

FORM: Final = RowFormat(
    {
        "site_id": "text",
        "area": "numeric",
        "spaces": "bigint",
        "latitude": "double precision",
        "open": "boolean",
        "since": "date",
        "hours": "jsonb",
        "created_at": "timestamptz",
        "deleted_at": "timestamptz",
    }
)
CREATED: Final = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
VALUES: Final = ["port", Decimal("-10.50"), -7, 39.25, True, date(1999, 12, 31), '{"a": 1}', CREATED, None]
SPACES, DELETED = 2, 8
AT: Final = At(9, CREATED)
CTID: Final = bytes(6)


def loaded(versions_json: str | None = None) -> Stored:
    return Stored.loaded(FORM, record_of(FORM, VALUES), 3, versions_json, CTID, 1)


def test_each_value_and_all_of_them_come_back() -> None:
    assert [loaded().value(index) for index in range(len(VALUES))] == VALUES
    assert loaded().values == VALUES


def test_a_row_that_was_only_read_is_not_to_be_written_and_packs_as_it_came() -> None:
    row = loaded('{"spaces": 2}')
    assert (row.at, row.version, row.field_versions) == (None, 3, {"spaces": 2})
    assert row.packed(FORM) == FORM.packed(VALUES)


@pytest.mark.parametrize("read_before", [False, True])
def test_a_change_is_seen_and_packed_whether_or_not_the_row_was_read_before(*, read_before: bool) -> None:
    row = loaded('{"spaces": 2}')
    if read_before:
        assert row.values == VALUES
    row.change({SPACES: 300}, ("spaces",), AT)
    row.change({DELETED: CREATED}, (), AT)
    expected: list[Any] = [*VALUES]
    expected[SPACES], expected[DELETED] = 300, CREATED
    assert (row.value(SPACES), row.value(DELETED), row.values) == (300, CREATED, expected)
    assert row.packed(FORM) == FORM.packed(expected)
    assert (row.at, row.version, row.versions_json()) == (AT, 5, '{"spaces":4}')


def test_an_event_that_only_counts_leaves_all_but_the_version() -> None:
    row = loaded('{"spaces": 2}')
    row.change({SPACES: 300}, ("spaces",), AT)
    counted = row.counted(At(10, CREATED))
    assert counted.at is not None
    assert (counted.version, counted.at.log_seq, counted.field_versions) == (5, 10, {"spaces": 4})
    assert counted.packed(FORM) == row.packed(FORM)
    assert counted.values == row.values


@pytest.mark.parametrize(
    ("kind", "value", "type_name"),
    [
        ("text", 5, "int"),
        ("text", "\ud800", "str"),
        ("bigint", 2**63, "int"),
        ("bigint", "5", "str"),
        ("double precision", "5", "str"),
        ("timestamptz", datetime(2026, 1, 1), "datetime"),  # noqa: DTZ001 - that is what is wrong
        ("timestamptz", "2026-01-01", "str"),
        ("date", "2026-01-01", "str"),
        ("numeric", "a", "str"),
        ("numeric", Decimal("sNaN"), "Decimal"),
        ("jsonb", {}, "dict"),
    ],
)
def test_a_value_that_its_column_cant_hold_is_refused_by_name(kind: str, value: Any, type_name: str) -> None:
    form = RowFormat({"first": "text", "wrong": kind})
    with pytest.raises(UnfitValueError, match=f"^wrong: expected what fits into {kind}, got {type_name}$"):
        form.packed(["fits", value])
