"""What the fold promises whatever the read models are: all of them or none, and the same again from the record."""

from typing import Any, NamedTuple

import pytest

from sitelog.projections._columns import Json
from sitelog.projections._fold import Fold, Waits
from sitelog.projections._merge import EVERY_FIELD
from sitelog.projections._projection import Field, History, Projection, change_of, field_of
from sitelog.projections._registry import plan
from sitelog.projections._stored import At
from sitelog.projections.customer_sites import customer_sites
from sitelog.streams.errors import Park
from sitelog.streams.events import ContactAdded, SiteCreated, SiteDeleted, SiteUpdated, SiteValues
from tests.read_models import OURS
from tests.sites import Folded, day


class Row(NamedTuple):
    site_id: str
    name: str | None = None


def created(name: str | None = "Harbour", **values: Any) -> SiteCreated:
    return SiteCreated(site_id="port", site_data=SiteValues(name=name), **values)


def renamed(name: str, **values: Any) -> SiteUpdated:
    return SiteUpdated(site_id="port", changed_fields=("name",), new_values=SiteValues(name=name), **values)


def sites() -> Projection[Row]:
    sites = Projection(name="sites", version=1, key="site_id", row=Row)
    sites.creates(SiteCreated)(lambda event: Row(event.site_id, event.site_data.name))
    sites.merges(SiteUpdated, {"name": field_of("name")})
    return sites


def watcher(name: str = "watcher") -> Projection[Row]:
    """A read model of the fields that it is told have changed."""
    watcher = Projection(name=name, version=1, key="site_id", row=Row)

    @watcher.records(SiteCreated, SiteUpdated)
    def watch(row: Row | None, event: SiteCreated | SiteUpdated) -> Row:
        seen = row.name or "" if row else ""
        return Row(event.site_id, f"{seen} {','.join(getattr(event, 'changed_fields', ['created']))}")

    return watcher


def test_what_one_read_model_can_not_take_no_other_gets() -> None:
    broken = Projection(name="broken", version=1, key="site_id", row=Row)

    @broken.records(SiteUpdated)
    def fail(_row: Row | None, _event: SiteUpdated) -> Row:
        raise LookupError("no such thing")

    folded = Folded([created()], planned=plan([sites(), watcher("a"), broken, watcher("z")]))
    with pytest.raises(Park, match="broken can't take the event: LookupError: no such thing") as parked:
        folded.take(renamed("Marina"))
    assert parked.value.reason == "fold_failed"
    assert [folded.row(name).name for name in ("sites", "a", "z")] == ["Harbour", " created", " created"]
    assert folded.version("sites") == 1


def no_such_thing(_: Any) -> Any:
    raise LookupError("no such thing")


@pytest.mark.parametrize("function", ["key", "field", "change"])
def test_whatever_function_of_a_read_model_fails_stops_the_entity_and_nobody_else(function: str) -> None:
    broken = Projection(name="broken", version=1, key="site_id", row=Row)
    broken.creates(SiteCreated)(lambda event: Row(event.site_id))
    key = no_such_thing if function == "key" else None
    name = Field(("name",), no_such_thing) if function == "field" else field_of("name")
    change = no_such_thing if function == "change" else change_of
    broken.merges(SiteUpdated, {"name": name}, key=key, change=change)
    folded = Folded([created()], planned=plan([watcher("a"), broken, watcher("z")]))

    assert folded.fold.missing([renamed("Marina")]) == {}
    with pytest.raises(Park, match="broken can't take the event: LookupError: no such thing") as parked:
        folded.take(renamed("Marina"))
    assert parked.value.reason == "fold_failed"
    assert [folded.row(name).name for name in ("broken", "a", "z")] == [None, " created", " created"]


def test_a_key_may_park_an_event_itself() -> None:
    def refuse(event: SiteUpdated) -> Any:
        raise Park("no_key", f"{event.site_id} has no key")

    strict = Projection(name="strict", version=1, key="site_id", row=Row)
    strict.records(SiteUpdated, key=refuse)(lambda row, _: row)
    with pytest.raises(Park, match="port has no key") as parked:
        Folded([renamed("Marina")], planned=plan([strict]))
    assert parked.value.reason == "no_key"


def test_a_creation_whose_key_fails_creates_nothing() -> None:
    broken = Projection(name="broken", version=1, key="site_id", row=Row)
    broken.creates(SiteCreated, key=no_such_thing)(lambda event: Row(event.site_id))
    assert Fold(plan([broken]), "reject").creates_missing(created()) is False


def test_the_rest_of_what_an_event_touches_is_loaded_although_one_key_fails() -> None:
    """Otherwise it would seem to come before its creation, and wait for ever."""
    broken = Projection(name="broken", version=1, key="site_id", row=Row)
    broken.changes(SiteUpdated, key=no_such_thing)(lambda row, _: row)
    ours = sites()
    assert Fold(plan([broken, ours]), "reject").missing([renamed("Marina")]) == {ours: {("port",)}}


def test_a_history_keeps_a_row_whose_json_is_only_spelled_otherwise() -> None:
    class Plan(NamedTuple):
        site_id: str
        hours: Json | None

    plans: History[Plan] = History(name="plans", version=1, key="site_id", row=Plan)
    texts = iter(['{"a": 1, "b": 2}', '{"b":2,"a":1}', '{"b":2}'])
    plans.follows(SiteCreated, SiteUpdated)(lambda _, event: (Plan(event.site_id, Json(next(texts))),))
    folded = Folded([created(), renamed("Marina")], planned=plan([plans]))
    assert folded.version("plans") == 1
    folded.take(renamed("Harbour"))
    assert folded.version("plans") == 2


def test_a_read_model_may_park_an_event_itself() -> None:
    strict = Projection(name="strict", version=1, key="site_id", row=Row)

    @strict.creates(SiteCreated)
    def refuse(event: SiteCreated) -> Row:
        raise Park("no_name", f"{event.site_id} has no name")

    with pytest.raises(Park, match="port has no name") as parked:
        Folded([created()], planned=plan([strict]))
    assert parked.value.reason == "no_name"


def test_an_event_that_waits_in_one_read_model_changes_no_other() -> None:
    needs_it = Projection(name="needs_it", version=1, key="site_id", row=Row)
    needs_it.changes(SiteCreated)(lambda row, _: row)
    folded = Folded(planned=plan([sites(), watcher(), needs_it]))
    with pytest.raises(Waits, match="needs_it has no row port yet"):
        folded.take(created())
    assert folded.rows("sites") == folded.rows("watcher") == []


def test_what_was_refused_nobody_sees() -> None:
    wrong = SiteValues(name="Garage")
    folded = Folded([created(), renamed("Marina", old_values=wrong)], "reject", plan([watcher(), sites()]))
    assert folded.row("watcher").name == " created"
    assert (folded.row("sites").name, folded.version("sites")) == ("Harbour", 1)
    assert folded.version("watcher") == 1


def test_of_what_was_refused_in_part_the_others_see_the_rest() -> None:
    both = SiteUpdated(
        site_id="port",
        changed_fields=("name", "market_segment"),
        old_values=SiteValues(name="Garage"),
        new_values=SiteValues(name="Marina", market_segment="retail"),
    )
    planned = plan([*OURS.projections, watcher()])
    assert Folded([created(), both], "reject", planned).row("watcher").name == " created market_segment"
    assert Folded([created(), both], "last_write_wins", planned).row("watcher").name == " created name,market_segment"


@pytest.mark.parametrize(("policy", "name", "version"), [("last_write_wins", "Marina", 2), ("reject", "Harbour", 1)])
def test_a_second_creation_is_decided_by_the_policy(policy: Any, name: str, version: int) -> None:
    folded = Folded([created(), created("Marina")], policy, plan([sites(), watcher()]))
    assert (folded.row("sites").name, folded.version("sites"), folded.version("watcher")) == (name, version, version)
    (conflict,) = folded.conflicts
    assert (conflict.field, conflict.reason, conflict.resolution) == (EVERY_FIELD, "exists", policy)


def test_what_was_decided_once_is_decided_alike_again() -> None:
    again = created("Marina")
    late = renamed("Pier", old_values=SiteValues(name="Garage"))
    fold = Fold(plan([sites()]), "last_write_wins")
    fold.decided = {again.event_id: "reject", late.event_id: "reject"}
    for number, event in enumerate([created(), again, late, renamed("Quay")], 1):
        fold.apply(event, At(number, day(number)))
    (rows,) = fold.rows.values()
    (stored,) = rows.values()
    assert stored.at is not None
    assert (stored.values[1], stored.version, stored.at.log_seq, stored.at.append_time) == ("Quay", 2, 4, day(4))


def test_the_version_at_which_a_field_changed_is_kept() -> None:
    events = [created(), renamed("Marina"), SiteUpdated(site_id="port", changed_fields=("market_segment",))]
    (stored,) = Folded(events).fold.rows[customer_sites].values()
    assert stored.field_versions == {"name": 2, "market_segment": 3}


def test_a_change_by_another_verb_counts_as_one_of_the_fields_that_it_differs_in() -> None:
    named = sites()
    named.changes(SiteDeleted)(lambda row, _: row._replace(name="closed"))
    named.changes(ContactAdded)(lambda row, _: row)
    planned = plan([named])
    folded = Folded([created(), SiteDeleted(site_id="port")], planned=planned)
    (stored,) = folded.fold.rows[named].values()
    assert (stored.version, stored.field_versions) == (2, {"name": 2})
    folded.take(SiteDeleted(site_id="port"))
    (stored,) = folded.fold.rows[named].values()
    assert (stored.version, stored.field_versions) == (3, {"name": 2}), "the name was the same already"


def test_what_is_not_taken_leaves_the_row_as_it_was() -> None:
    owner, picky = sites(), Projection(name="picky", version=1, key="site_id", row=Row)
    picky.changes(SiteUpdated)(lambda row, _: row)
    folded = Folded([created()], planned=plan([owner, picky]))
    (stored,) = folded.fold.rows[owner].values()
    before = ([*stored.values], stored.version, dict(stored.field_versions), stored.at)
    with pytest.raises(Waits):
        folded.take(renamed("Quay"))
    assert (stored.values, stored.version, stored.field_versions, stored.at) == before


def test_a_record_that_leaves_nothing_makes_no_row() -> None:
    nothing = Projection(name="nothing", version=1, key="site_id", row=Row)
    nothing.records(SiteCreated)(lambda row, _: row)
    assert Folded([created()], planned=plan([nothing])).rows("nothing") == []


def test_a_history_removes_what_it_leaves_out_and_knows_what_comes_back() -> None:
    names: History[Row] = History(name="names", version=1, key=("site_id", "name"), row=Row)
    names.follows(SiteCreated)(lambda rows, event: (*rows, Row(event.site_id, event.site_data.name)))
    names.follows(SiteDeleted)(lambda _, __: ())
    folded = Folded([created("a"), created("b")], planned=plan([names]))
    (ranges,) = folded.fold.ranges[names].values()
    assert (ranges.rows.keys(), ranges.removed) == ({("port", "a"), ("port", "b")}, set())
    folded.take(SiteDeleted(site_id="port"))
    (ranges,) = folded.fold.ranges[names].values()
    assert (ranges.rows, ranges.removed) == ({}, {("port", "a"), ("port", "b")})
    folded.take(created("a"))
    (ranges,) = folded.fold.ranges[names].values()
    assert (ranges.rows.keys(), ranges.removed) == ({("port", "a")}, {("port", "b")})


def test_only_what_an_event_may_touch_and_is_not_there_is_missing() -> None:
    fold = Fold(OURS, "reject")
    missing = {projection.name: keys for projection, keys in fold.missing([renamed("Marina"), renamed("Quay")]).items()}
    assert missing == {"customer_sites": {("port",)}}
    moved = SiteUpdated(site_id="port", changed_fields=("territory_id",))
    assert {projection.name for projection in fold.missing([moved])} == {"customer_sites", "territory_assignments"}
    known = Folded([SiteCreated(site_id="port", site_data=SiteValues())])
    assert "customer_sites" not in {projection.name for projection in known.fold.missing([renamed("Marina")])}
