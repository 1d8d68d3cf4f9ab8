"""How a read model is declared, and what is refused at once."""

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sitelog.projections import _registry
from sitelog.projections._columns import Json, columns
from sitelog.projections._projection import Field, History, Projection, field_of
from sitelog.projections._registry import _load_one, load, plan
from sitelog.streams.events import (
    ContactAdded,
    ContractCreated,
    SiteAssignedToTerritory,
    SiteCreated,
    SiteDeleted,
    SiteUpdated,
    SiteValues,
    TerritoryCreated,
)
from sitelog.streams.examples import example
from tests.oracle import TABLES
from tests.read_models import OPEN_SITES, OURS
from tests.sites import Folded


class Row(NamedTuple):
    site_id: str
    name: str | None = None
    gone_at: datetime | None = None


def projection(**values: Any) -> Projection[Any]:
    return Projection(**{"name": "sites", "version": 1, "key": "site_id", "row": Row, **values})


def test_a_row_class_says_the_columns() -> None:
    class Everything(NamedTuple):
        a: str
        b: int | None
        c: float
        d: bool
        e: datetime | None
        f: date
        g: Decimal
        h: Json | None

    assert columns(Everything) == {
        "a": ("text", False),
        "b": ("bigint", True),
        "c": ("double precision", False),
        "d": ("boolean", False),
        "e": ("timestamptz", True),
        "f": ("date", False),
        "g": ("numeric", False),
        "h": ("jsonb", True),
    }


def test_a_type_that_no_column_can_hold_is_refused_by_name() -> None:
    class Wrong(NamedTuple):
        site_id: str
        parts: list[str]

    with pytest.raises(TypeError, match=r"Wrong\.parts: expected one of str, int, .*, got list\[str\]"):
        projection(row=Wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "Sites"}, "'Sites': expected a lower-case name"),
        ({"name": "my-sites"}, "'my-sites': expected a lower-case name"),
        ({"key": ("site_id", "place")}, r"key columns \['place'\] are not fields of Row"),
        ({"tombstone": "deleted_at"}, "tombstone 'deleted_at' is not a field of Row"),
    ],
)
def test_a_wrong_declaration_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        projection(**wrong)


@pytest.mark.parametrize("column", ["version", "field_versions", "updated_at", "log_partition", "log_seq"])
def test_a_field_called_like_what_the_store_keeps_is_refused(column: str) -> None:
    reserved = NamedTuple("reserved", [("site_id", str), (column, int)])  # type: ignore[misc]
    with pytest.raises(ValueError, match=f"'{column}'.* are kept by the store"):
        projection(row=reserved)


def test_names_that_postgres_would_cut_are_refused() -> None:
    with pytest.raises(ValueError, match="63 characters"):
        projection(name="s" * 60)
    with pytest.raises(ValueError, match="63 characters"):
        projection(name="s" * 40, indexes=[("name", "gone_at", "site_id")])


def test_the_table_carries_the_version() -> None:
    assert projection(version=3).table == "sites_v3"


def test_an_event_is_handled_once_by_each_read_model() -> None:
    sites = projection()
    sites.creates(SiteCreated)(lambda event: Row(event.site_id))
    with pytest.raises(ValueError, match="sites: site_created is handled twice"):
        sites.records(SiteCreated)(lambda row, _: row)


def test_the_verbs_say_who_decides_on_conflicts_and_who_waits() -> None:
    sites = projection()
    sites.creates(SiteCreated)(lambda event: Row(event.site_id))
    sites.changes(SiteDeleted)(lambda row, _: row)
    sites.records(ContactAdded)(lambda row, _: row)
    sites.merges(SiteUpdated, {"name": field_of("name")})
    kinds = {event.event_type: (h.kind, h.owns, h.needs_row) for event, h in sites.handlers.items()}
    assert kinds == {
        "site_created": ("creates", True, False),
        "site_deleted": ("changes", False, True),
        "contact_added": ("records", False, False),
        "site_updated": ("merges", True, True),
    }


def test_a_decorated_function_stays_what_it_was() -> None:
    def begin(event: SiteCreated) -> Row:
        return Row(event.site_id)

    assert projection().creates(SiteCreated)(begin) is begin


def test_keys_are_read_from_the_events_fields_unless_told_otherwise() -> None:
    contracts = projection(key=("site_id", "name"))
    contracts.creates(SiteCreated, key=lambda event: (event.site_id, event.site_data.name))(lambda _: None)
    assert contracts.handlers[SiteCreated].key(example("site_created")) == ("site-1", "Harbour View Garage")
    assert contracts.key_of_row(Row("site-1", "a name")) == ("site-1", "a name")
    one = projection()
    one.creates(SiteCreated)(lambda _: None)
    assert one.handlers[SiteCreated].key(example("site_created")) == ("site-1",)
    assert one.key_of_row(Row("site-1")) == ("site-1",)


def test_an_event_that_has_not_changed_the_field_is_passed_over() -> None:
    history: History[Row] = History(name="history", version=1, key=("site_id", "name"), row=Row)
    history.follows(SiteUpdated, changed="name")(lambda _, event: (Row(event.site_id, event.new_values.name),))
    latest = projection()
    latest.records(SiteUpdated, changed="name")(lambda _, event: Row(event.site_id, event.new_values.name))
    other = SiteUpdated(site_id="port", changed_fields=("market_segment",), new_values=SiteValues(name="Quay"))
    renamed = SiteUpdated(site_id="port", changed_fields=("name",), new_values=SiteValues(name="Pier"))
    folded = Folded([other], planned=plan([history, latest]))
    assert (folded.rows("history"), folded.rows(latest.name)) == ([], [])
    folded.take(renamed)
    assert (folded.rows("history"), folded.rows(latest.name)) == ([Row("port", "Pier")], [Row("port", "Pier")])


def test_only_an_event_with_changed_fields_can_be_asked_for_them() -> None:
    expected = "changed='name', but site_created has no changed_fields"
    with pytest.raises(ValueError, match=expected):
        projection().records(SiteCreated, changed="name")(lambda row, _: row)


def test_a_history_only_follows() -> None:
    named: History[Row] = History(name="named", version=1, key=("site_id", "name"), row=Row)
    with pytest.raises(ValueError, match="named: a History takes its events with `follows`"):
        named.creates(SiteCreated)(lambda event: Row(event.site_id))
    with pytest.raises(ValueError, match="named: a History takes its events with `follows`"):
        named.merges(SiteUpdated, {"name": field_of("name")})


def test_fields_that_differ_are_found_through_all_their_columns() -> None:
    sites = projection()
    both = Field(("name", "gone_at"), lambda values: (values.name, None))
    sites.merges(SiteUpdated, {"name": field_of("name"), "both": both})
    assert sites.fields_between(Row("a", "x"), Row("a", "y")) == ["name", "both"]
    assert sites.fields_between(Row("a", "x"), Row("b", "x")) == []


def test_json_that_only_looks_different_is_no_difference() -> None:
    class Hours(NamedTuple):
        site_id: str
        hours: Json | None

    hours = projection(row=Hours)
    hours.merges(SiteUpdated, {"hours": field_of("hours")})
    one, other = Json('{"a":1,"b":2}'), Json('{"b": 2, "a": 1}')
    assert hours.fields_between(Hours("a", one), Hours("a", other)) == []
    assert hours.fields_between(Hours("a", one), Hours("a", None)) == ["hours"]


def test_every_file_without_an_underscore_is_a_read_model() -> None:
    files = Path(_registry.__file__).parent.glob("[!_]*.py")
    assert [one.name for one in load()] == sorted(file.stem for file in files)
    assert {one.name for one in load()} >= set(TABLES)


def test_a_file_that_is_none_stops_everything() -> None:
    with pytest.raises(ValueError, match=r"projections/_merge\.py: expected `_merge = Projection\(name='_merge', …\)`"):
        _load_one("_merge")
    with pytest.raises(ModuleNotFoundError):
        _load_one("nothing")


def test_two_read_models_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"different names, got \['sites', 'sites'\]"):
        plan([projection(), projection(version=2)])


def test_only_one_read_model_decides_on_an_events_conflicts() -> None:
    one, other = projection(), projection(name="others")
    for sites in (one, other):
        sites.creates(SiteCreated)(lambda event: Row(event.site_id))
    with pytest.raises(ValueError, match=r"site_created: only one .*, got \['sites', 'others'\]"):
        plan([one, other])


def test_who_decides_comes_first() -> None:
    for event, handlers in plan(reversed(OURS.projections)).handlers.items():
        assert [handler.owns for handler in handlers[1:]] == [False] * (len(handlers) - 1), event


def test_a_plan_knows_which_events_others_may_wait_for() -> None:
    creations = {event for event in OURS.handlers if OURS.creates(event)}
    assert creations == {SiteCreated, ContractCreated, ContactAdded, TerritoryCreated}


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("territories", {"territories"}),
        ("contacts", {"contacts"}),
        ("performance_history", {"performance_history"}),
        ("contracts", {"contracts", "customer_sites", "contacts"}),
        ("territory_assignments", {"territory_assignments", "customer_sites", "contracts", "contacts"}),
        ("open_sites", {"open_sites", "customer_sites", "contracts", "contacts"}),
    ],
)
def test_a_read_model_is_replayed_with_those_that_decide_for_it(name: str, needed: set[str]) -> None:
    every = plan([*OURS.projections, OPEN_SITES])
    assert {one.name for one in every.named([name]).projections} == needed


def test_assignments_are_decided_on_by_the_site() -> None:
    first, *rest = OURS.handlers[SiteAssignedToTerritory]
    assert first.projection.name == "customer_sites"
    assert [handler.projection.name for handler in rest] == ["territory_assignments"]
