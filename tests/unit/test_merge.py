"""What becomes of each field of a partial update, whoever has changed the row meanwhile."""

from typing import Any, NamedTuple

import pytest

from sitelog.projections._merge import EVERY_FIELD, Conflict, Merged, Merger, Policy
from sitelog.projections._projection import Change, Field, field_of
from sitelog.projections._stored import Stored

COLUMNS = {"name": 0, "city": 1, "street": 2, "hours": 3}
FIELDS = {
    "name": field_of("name"),
    "address": Field(("city", "street"), lambda values: (values.city, values.street)),
    "hours": field_of("hours"),
}
ROW = ("Harbour", "Baltimore", "Pier 1", '{"open": "06:00", "close": "24:00"}')


class Values(NamedTuple):
    name: str | None = None
    city: str | None = None
    street: str | None = None
    hours: str | None = None


def stored(version: int = 5, row: tuple[str | None, ...] = ROW, **field_versions: int) -> Stored:
    return Stored(list(row), version, field_versions, None)


def meet(
    change: Change,
    on: Stored | None = None,
    *,
    expected_version: int | None = None,
    policy: Policy = "last_write_wins",
    deleted: bool = False,
) -> Merged:
    return Merger("sites", COLUMNS, {"hours"}, FIELDS).merge(
        on or stored(), change, expected_version, policy, deleted=deleted
    )


def rename(old: str | None = None, new: str | None = "Marina") -> Change:
    return Change(("name",), None if old is None else Values(name=old), Values(name=new))


def test_an_update_that_expects_nothing_is_taken() -> None:
    merged = meet(rename())
    assert (merged.values, merged.accepted, merged.conflicts) == ({0: "Marina"}, ("name",), ())


def test_a_field_of_several_columns_is_taken_whole() -> None:
    merged = meet(Change(("address",), None, Values(city="Boston")))
    assert merged.values == {1: "Boston", 2: None}


def test_a_changed_field_without_a_new_value_becomes_null() -> None:
    assert meet(Change(("name", "address"), None, None)).values == {0: None, 1: None, 2: None}


def test_an_update_that_saw_the_row_as_it_is_is_taken() -> None:
    assert meet(rename(old="Harbour")).conflicts == ()


@pytest.mark.parametrize("policy", ["last_write_wins", "reject"])
def test_an_update_that_saw_another_value_is_decided_by_the_policy_and_recorded(policy: Policy) -> None:
    merged = meet(rename(old="Garage"), policy=policy)
    assert merged.conflicts == (Conflict("sites", "name", "old_value", "Garage", "Harbour", policy),)
    assert merged.accepted == (() if policy == "reject" else ("name",))
    assert merged.values == ({} if policy == "reject" else {0: "Marina"})


def test_of_an_update_the_fields_that_nobody_else_changed_are_merged() -> None:
    old, new = Values(name="Garage", city="Baltimore", street="Pier 1"), Values(name="Marina", city="Boston")
    merged = meet(Change(("name", "address"), old, new), policy="reject")
    assert merged.accepted == ("address",)
    assert merged.values == {1: "Boston", 2: None}
    assert [conflict.field for conflict in merged.conflicts] == ["name"]


def test_a_field_that_has_the_new_value_already_is_no_conflict() -> None:
    merged = meet(rename(old="Garage", new="Harbour"), policy="reject")
    assert (merged.accepted, merged.conflicts) == (("name",), ())


@pytest.mark.parametrize(
    ("expected_version", "conflicts"),
    [(5, False), (4, False), (3, False), (2, True), (1, True), (0, True), (6, True)],
    ids=["the row's", "one before", "that of the change", "before the change", "the first", "none", "one to come"],
)
def test_a_field_that_changed_after_the_expected_version_conflicts(expected_version: int, conflicts: bool) -> None:  # noqa: FBT001
    merged = meet(rename(), stored(5, name=3), expected_version=expected_version)
    expected = (Conflict("sites", "name", "version", str(expected_version), "5", "last_write_wins"),)
    assert merged.conflicts == (expected if conflicts else ())


def test_a_field_that_never_changed_conflicts_only_with_those_that_expect_no_row() -> None:
    assert meet(rename(), expected_version=1).conflicts == ()
    assert [conflict.reason for conflict in meet(rename(), expected_version=0).conflicts] == ["version"]


def test_a_row_that_was_created_again_changed_in_every_field_then() -> None:
    again = stored(5, **{EVERY_FIELD: 4, "name": 5})
    address = Change(("address",), None, Values(city="Boston"))
    assert meet(address, again, expected_version=4, policy="reject").conflicts == ()
    assert [conflict.field for conflict in meet(address, again, expected_version=3, policy="reject").conflicts] == [
        "address"
    ]
    assert [conflict.field for conflict in meet(rename(), again, expected_version=4, policy="reject").conflicts] == [
        "name"
    ]


def test_the_old_value_says_more_than_the_version() -> None:
    merged = meet(rename(old="Garage"), stored(5, name=3), expected_version=1)
    assert [conflict.reason for conflict in merged.conflicts] == ["old_value"]


def test_an_update_that_saw_the_value_but_not_the_version_conflicts() -> None:
    merged = meet(rename(old="Harbour"), stored(5, name=3), expected_version=1)
    assert [conflict.reason for conflict in merged.conflicts] == ["version"]


@pytest.mark.parametrize("policy", ["last_write_wins", "reject"])
def test_on_a_deleted_row_everything_is_rejected_whatever_the_policy(policy: Policy) -> None:
    merged = meet(Change(("name", "hours"), None, Values(name="Marina")), policy=policy, deleted=True)
    assert (merged.accepted, merged.values) == ((), {})
    assert [(c.field, c.reason, c.found, c.resolution) for c in merged.conflicts] == [
        ("name", "deleted", "deleted", "reject"),
        ("hours", "deleted", "deleted", "reject"),
    ]


def test_json_is_compared_by_what_it_says() -> None:
    same = Values(hours='\n {"close":"24:00","open":"06:00"}')
    assert meet(Change(("hours",), same, Values(hours=None))).conflicts == ()
    assert len(meet(Change(("hours",), Values(hours='{"open":"06:00"}'), None)).conflicts) == 1


@pytest.mark.parametrize(
    ("written", "as_postgres_has_it"),
    [("[1.2345678901234567e18]", "[1234567890123456700]"), ("[1.10]", "[1.1]"), ("[-0.0]", "[0]"), ("[1E2]", "[100]")],
)
def test_numbers_in_json_are_compared_by_their_exact_value(written: str, as_postgres_has_it: str) -> None:
    found = stored(1, (None, None, None, as_postgres_has_it))
    assert meet(Change(("hours",), Values(hours=written), None), found).conflicts == ()


@pytest.mark.parametrize(("one", "other"), [("[true]", "[1]"), ("[0]", "[false]"), ("[1e9999999999999999999]", "[1]")])
def test_what_python_takes_for_the_same_or_for_too_large_differs(one: str, other: str) -> None:
    found = stored(1, (None, None, None, one))
    assert meet(Change(("hours",), Values(hours=other), None), found).conflicts != ()


def test_numbers_in_json_that_differ_in_the_last_of_many_digits_differ() -> None:
    found = stored(1, (None, None, None, "[0.10000000000000000001]"))
    assert meet(Change(("hours",), Values(hours="[0.1]"), None), found).conflicts != ()


@pytest.mark.parametrize("other", ["[ 1 ]", "[1.0]"])
def test_text_that_only_looks_like_json_is_compared_as_text(other: str) -> None:
    found = stored(1, ("[1]", None, None, None))
    assert meet(rename(old="[1]"), found, policy="reject").conflicts == ()
    assert meet(rename(old=other), found, policy="reject").conflicts != ()


@pytest.mark.parametrize("text", ["{no json", "[1, 2", "{}}", "[" * 100_000])
def test_what_should_be_json_and_is_not_is_compared_as_text(text: str) -> None:
    found = stored(1, (None, None, None, text))
    assert meet(Change(("hours",), Values(hours=text), None), found).conflicts == ()
    assert meet(Change(("hours",), Values(hours=text + " "), None), found).conflicts != ()


def test_of_several_columns_those_with_json_are_compared_by_what_they_say() -> None:
    fields = {"both": Field(("name", "hours"), lambda values: (values.name, values.hours))}
    merger = Merger("sites", COLUMNS, {"hours"}, fields)

    def saw(name: str, hours: str) -> tuple[Conflict, ...]:
        change = Change(("both",), Values(name=name, hours=hours), None)
        return merger.merge(stored(), change, None, "reject", deleted=False).conflicts

    assert saw("Harbour", '{"close":"24:00","open":"06:00"}') == ()
    assert saw("Garage", '{"close":"24:00","open":"06:00"}') != ()
    assert saw("Harbour", '{"close":"23:00","open":"06:00"}') != ()


def test_a_field_of_several_columns_is_described_whole() -> None:
    old: Any = Values(city="Boston", street=None)
    (conflict,) = meet(Change(("address",), old, None)).conflicts
    assert (conflict.expected, conflict.found) == ('["Boston",null]', '["Baltimore","Pier 1"]')


def test_a_value_that_is_null_is_described_as_none() -> None:
    old: Any = Values()
    (conflict,) = meet(Change(("name",), old, Values(name="Marina"))).conflicts
    assert (conflict.expected, conflict.found) == (None, "Harbour")
