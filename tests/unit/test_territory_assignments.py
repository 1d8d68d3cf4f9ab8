"""Who owned which site at a time T, whatever came late, twice or for the future."""

from datetime import datetime
from itertools import pairwise

import pytest

from sitelog.projections.territory_assignments import Assignment
from sitelog.streams.events import (
    SiteAssignedToTerritory,
    SiteCreated,
    SiteDeleted,
    SiteUpdated,
    SiteValues,
)
from tests.sites import Folded, day


def created(on: int = 1, territory_id: str | None = "east") -> SiteCreated:
    return SiteCreated(site_id="port", event_timestamp=day(on), site_data=SiteValues(territory_id=territory_id))


def assigned(territory_id: str, on: int, effective: int | None = None) -> SiteAssignedToTerritory:
    return SiteAssignedToTerritory(
        site_id="port",
        event_timestamp=day(on),
        territory_id=territory_id,
        effective_at=None if effective is None else day(effective),
        reason="growth",
        approved_by="a director",
    )


def updated(territory_id: str | None, on: int) -> SiteUpdated:
    new = SiteValues(territory_id=territory_id)
    return SiteUpdated(site_id="port", event_timestamp=day(on), changed_fields=("territory_id",), new_values=new)


def deleted(on: int) -> SiteDeleted:
    return SiteDeleted(site_id="port", event_timestamp=day(on))


def ranges(
    *events: SiteCreated | SiteUpdated | SiteAssignedToTerritory | SiteDeleted,
) -> list[tuple[str, int, int | None]]:
    """Territory, first day and the day before which it ended, for each range."""
    return [
        (row.territory_id, row.valid_from.day, row.valid_until and row.valid_until.day)
        for row in Folded(events).rows("territory_assignments")
    ]


def owner(at: datetime, rows: list[Assignment]) -> list[str]:
    """What the query in the read model's own docstring answers."""
    return [
        row.territory_id for row in rows if row.valid_from <= at and (row.valid_until is None or row.valid_until > at)
    ]


def test_a_site_belongs_to_the_territory_that_it_came_with() -> None:
    assert ranges(created(3)) == [("east", 3, None)]


def test_a_site_without_a_territory_belongs_to_nobody() -> None:
    assert ranges(created(territory_id=None)) == []


def test_an_assignment_ends_the_one_before() -> None:
    assert ranges(created(1), assigned("west", 5)) == [("east", 1, 5), ("west", 5, None)]


def test_an_assignment_says_why_and_by_whom() -> None:
    (row,) = Folded([created(territory_id=None), assigned("west", 5)]).rows("territory_assignments")
    assert row == Assignment("port", day(5), None, "west", "growth", "a director")


def test_an_assignment_in_the_past_replaces_what_was_known_after_it() -> None:
    history = [created(1), assigned("west", 5), assigned("north", 9)]
    assert ranges(*history) == [("east", 1, 5), ("west", 5, 9), ("north", 9, None)]
    assert ranges(*history, assigned("south", 10, effective=3)) == [("east", 1, 3), ("south", 3, None)]


def test_an_assignment_from_before_the_first_one_replaces_it_all() -> None:
    assert ranges(created(5), assigned("west", 6, effective=2)) == [("west", 2, None)]


def test_an_assignment_at_the_moment_of_another_replaces_it() -> None:
    assert ranges(created(1), assigned("west", 5), assigned("north", 6, effective=5)) == [
        ("east", 1, 5),
        ("north", 5, None),
    ]


def test_an_assignment_for_the_future_begins_then() -> None:
    history = [created(1), assigned("west", 5, effective=20)]
    assert ranges(*history) == [("east", 1, 20), ("west", 20, None)]
    assert ranges(*history, assigned("north", 8)) == [("east", 1, 8), ("north", 8, None)]


def test_an_update_of_the_site_moves_it_too() -> None:
    assert ranges(created(1), updated("west", 5)) == [("east", 1, 5), ("west", 5, None)]


def test_an_update_can_leave_it_to_nobody() -> None:
    assert ranges(created(1), updated(None, 5)) == [("east", 1, 5)]
    assert ranges(created(1), updated(None, 5), assigned("west", 7)) == [("east", 1, 5), ("west", 7, None)]


def test_an_update_of_something_else_leaves_it_where_it_is() -> None:
    other = SiteUpdated(site_id="port", changed_fields=("name",), new_values=SiteValues(territory_id="west"))
    assert ranges(created(1), other) == [("east", 1, None)]


def test_a_deleted_site_belongs_to_nobody() -> None:
    assert ranges(created(1), assigned("west", 5, effective=20), deleted(9)) == [("east", 1, 9)]


def test_a_site_that_comes_back_keeps_its_past() -> None:
    assert ranges(created(1), deleted(5), created(9, "west")) == [("east", 1, 5), ("west", 9, None)]


def test_a_site_that_is_created_over_ends_what_it_had() -> None:
    assert ranges(created(1), created(5, "west")) == [("east", 1, 5), ("west", 5, None)]
    assert ranges(created(1), created(5, None)) == [("east", 1, 5)]


def test_an_assignment_that_was_refused_moves_nothing() -> None:
    wrong = SiteUpdated(
        site_id="port",
        changed_fields=("territory_id",),
        old_values=SiteValues(territory_id="nobody's"),
        new_values=SiteValues(territory_id="west"),
    )
    refused = Folded([created(1), wrong], policy="reject")
    assert [row.territory_id for row in refused.rows("territory_assignments")] == ["east"]


@pytest.mark.parametrize(
    ("on", "expected"), [(1, []), (2, ["east"]), (4, ["east"]), (5, ["west"]), (8, ["west"]), (9, []), (30, [])]
)
def test_who_owned_it_at_a_time_is_one_query(on: int, expected: list[str]) -> None:
    folded = Folded([created(2), assigned("west", 5), deleted(9)])
    assert owner(day(on), folded.rows("territory_assignments")) == expected


def test_ranges_never_overlap_and_only_the_last_is_open() -> None:
    folded = Folded([created(3), assigned("a", 9), assigned("b", 5), assigned("c", 7, effective=2), assigned("d", 20)])
    rows = folded.rows("territory_assignments")
    assert all(one.valid_until is not None and one.valid_until <= other.valid_from for one, other in pairwise(rows))
    assert rows[-1].valid_until is None


def test_a_range_counts_its_own_changes_only() -> None:
    folded = Folded([created(1)])
    assert folded.version("territory_assignments") == 1
    folded.take(SiteUpdated(site_id="port", changed_fields=("name",)))
    assert folded.version("territory_assignments") == 1
    folded.take(updated(None, 9))
    assert folded.version("territory_assignments") == 2
