"""Who is applied, who waits and who is put aside, when records come early, twice, or can't be read."""

from collections.abc import Sequence
from typing import Any

import pytest

from sitelog.projections._items import Item
from sitelog.projections._registry import Plan, plan
from sitelog.streams._event import Event
from sitelog.streams.events import (
    ContactAdded,
    ContactChanged,
    ContactValues,
    SiteCreated,
    SiteDeleted,
    SiteUpdated,
    SiteValues,
)
from tests.memory import MemoryStore, item_of, unreadable
from tests.read_models import OPEN_SITES, OURS

TOPIC = "customer-sites-events"


def created(site_id: str = "port") -> SiteCreated:
    return SiteCreated(site_id=site_id, site_data=SiteValues(name="Harbour"))


def renamed(name: str, site_id: str = "port") -> SiteUpdated:
    return SiteUpdated(site_id=site_id, changed_fields=("name",), new_values=SiteValues(name=name))


def added(site_id: str = "port") -> ContactAdded:
    return ContactAdded(site_id=site_id, contact_id="desk", contact=ContactValues())


def called(site_id: str = "port") -> ContactChanged:
    return ContactChanged(site_id=site_id, contact_id="desk", changed_fields=("phone",))


class Taking(MemoryStore):
    """Records in the order in which they come; a string is one of that entity that can't be read."""

    def __init__(self, planned: Plan = OURS) -> None:
        super().__init__(planned)
        self._offset = 0

    def come(self, *records: Event | str | Item) -> None:
        """Take records in one batch."""
        self.take([self._item(record) for record in records], TOPIC)

    def _item(self, record: Event | str | Item) -> Item:
        self._offset += 1
        if isinstance(record, Item):
            return record
        return unreadable(record, self._offset) if isinstance(record, str) else item_of(record, self._offset)

    @property
    def log(self) -> list[str]:
        return [item.event.event_id for taken in self.taken for _, item in taken.log if item.event]

    @property
    def aside(self) -> dict[int, str]:
        """Status by offset of what is put aside."""
        return {offset: status for offset, (_, status) in sorted(self.lanes[TOPIC].shelf.items())}

    @property
    def name(self) -> Any:
        return self.tables()["customer_sites"]["port",]["site_name"]


def ids(*events: Event) -> list[str]:
    return [event.event_id for event in events]


each_cut = pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])


def taken(records: Sequence[Event | str], *, together: bool) -> Taking:
    taking = Taking()
    if together:
        taking.come(*records)
    else:
        for record in records:
            taking.come(record)
    return taking


@each_cut
def test_what_comes_in_order_is_applied_in_order(together: bool) -> None:  # noqa: FBT001
    events = [created(), renamed("a"), created("other"), renamed("b")]
    taking = taken(events, together=together)
    assert taking.log == ids(*events)
    assert (taking.name, taking.aside, taking.lanes[TOPIC].log_seq) == ("b", {}, 4)


@each_cut
def test_an_update_that_overtakes_its_creation_waits_and_is_applied_after_it(together: bool) -> None:  # noqa: FBT001
    early, creation, late = renamed("early"), created(), renamed("late")
    taking = taken([early, creation, late], together=together)
    assert taking.log == ids(creation, early, late)
    assert (taking.name, taking.aside) == ("late", {})


@each_cut
def test_what_follows_one_that_waits_waits_behind_it_and_nobody_else_does(together: bool) -> None:  # noqa: FBT001
    early, behind, other = renamed("early"), renamed("behind"), created("other")
    taking = taken([early, behind, other], together=together)
    assert taking.log == ids(other)
    assert taking.aside == {1: "waiting", 2: "behind"}
    taking.come(creation := created())
    assert taking.log == ids(other, creation, early, behind)
    assert (taking.name, taking.aside) == ("behind", {})


@each_cut
def test_one_creation_may_free_an_event_and_leave_the_next_waiting_for_another(together: bool) -> None:  # noqa: FBT001
    first, call, last = renamed("first"), called(), renamed("last")
    taking = taken([first, call, last, creation := created()], together=together)
    assert taking.log == ids(creation, first)
    assert taking.aside == {2: "waiting", 3: "behind"}
    taking.come(contact := added())
    assert taking.log == ids(creation, first, contact, call, last)
    assert taking.aside == {}


@each_cut
def test_a_creation_that_had_to_wait_itself_frees_those_that_wait_for_it(together: bool) -> None:  # noqa: FBT001
    call, contact, last = called(), added(), renamed("last")
    taking = taken([call, contact, last], together=together)
    assert (taking.log, taking.aside) == ([], {1: "waiting", 2: "behind", 3: "behind"})
    taking.come(creation := created())
    assert taking.log == ids(creation, contact, call, last)
    assert taking.aside == {}
    assert {closed.status for closed in taking.taken[-1].closed} == {"applied"}


@each_cut
def test_an_unreadable_record_stops_its_entity_and_nobody_else(together: bool) -> None:  # noqa: FBT001
    creation, other = created(), created("other")
    taking = taken([creation, "port", renamed("behind"), other], together=together)
    assert taking.log == ids(creation, other)
    assert taking.aside == {2: "parked", 3: "behind"}


@each_cut
def test_a_creation_frees_nobody_behind_an_unreadable_record(together: bool) -> None:  # noqa: FBT001
    early, creation = renamed("early"), created()
    taking = taken([early, "port", renamed("behind"), creation, renamed("later")], together=together)
    assert taking.log == ids(creation, early)
    assert taking.aside == {2: "parked", 3: "behind", 5: "behind"}


@each_cut
def test_a_record_without_any_id_stops_nobody(together: bool) -> None:  # noqa: FBT001
    creation, update = created(), renamed("a")
    taking = taken([creation, "", update, ""], together=together)
    assert taking.log == ids(creation, update)
    assert taking.aside == {2: "parked", 4: "parked"}


@each_cut
def test_what_is_sent_twice_is_applied_once(together: bool) -> None:  # noqa: FBT001
    creation, update = created(), renamed("a")
    taking = taken([creation, update, creation, update, update], together=together)
    assert taking.log == ids(creation, update)
    assert sum(taken.duplicates for taken in taking.taken) == 3


@each_cut
def test_what_waits_twice_is_applied_once(together: bool) -> None:  # noqa: FBT001
    early = renamed("early")
    taking = taken([early, early, creation := created()], together=together)
    assert taking.log == ids(creation, early)
    assert taking.aside == {}
    assert sum(taken.duplicates for taken in taking.taken) == 1


def test_what_is_freed_in_a_later_batch_is_closed_as_applied_and_what_was_repeated_as_discarded() -> None:
    early = renamed("early")
    taking = taken([early, early, created()], together=False)
    assert [(closed.parked_id, closed.status) for closed in taking.taken[-1].closed] == [
        (2, "applied"),
        (3, "discarded"),
    ]


def test_what_is_freed_in_its_own_batch_was_never_put_aside() -> None:
    taking = taken([renamed("early"), created()], together=True)
    assert (taking.taken[0].parked, taking.taken[0].closed) == ({}, [])


@each_cut
def test_an_event_that_a_read_model_can_not_take_stops_its_entity(together: bool) -> None:  # noqa: FBT001
    def refuse(*_: object) -> None:
        raise ArithmeticError("too much")

    opened = type(OPEN_SITES)(name="picky", version=1, key="site_id", row=OPEN_SITES.row)
    opened.follows(SiteDeleted)(refuse)
    taking = Taking(plan([*OURS.projections, opened]))
    records = [created(), SiteDeleted(site_id="port"), renamed("behind"), created("other")]
    for batch in [records] if together else [[record] for record in records]:
        taking.come(*batch)
    assert taking.aside == {2: "parked", 3: "behind"}
    assert len(taking.log) == 2
    (row,) = [row for taken in taking.taken for row in taken.parked.values() if row.status == "parked"]
    assert (row.reason, row.message) == ("fold_failed", "picky can't take the event: ArithmeticError: too much")
    assert taking.tables()["customer_sites"]["port",]["deleted_at"] is None


def test_conflicts_are_recorded_at_the_place_of_their_event() -> None:
    wrong = SiteUpdated(
        site_id="port", changed_fields=("name",), old_values=SiteValues(name="Garage"), new_values=SiteValues()
    )
    taking = taken([created("other"), created(), wrong], together=True)
    ((log_partition, log_seq, read_model, entity_id, event_id, *_),) = taking.taken[0].conflicts
    assert (log_partition, log_seq, read_model, entity_id, event_id) == (1, 3, "customer_sites", "port", wrong.event_id)


def test_why_it_is_put_aside_is_kept_with_the_record() -> None:
    taking = taken([renamed("early"), renamed("behind"), "broken"], together=True)
    reasons = [(row.reason, row.message) for row in taking.taken[0].parked.values()]
    assert reasons == [
        ("waiting", "customer_sites has no row port yet: waiting for its creation"),
        ("behind", "an earlier event of this entity is put aside"),
        ("wrong_bytes", "expected 00 or c3 01 at the beginning, got 7b 22"),
    ]


def test_a_record_with_neither_event_nor_problem_is_put_aside_all_the_same() -> None:
    item = unreadable("port", 1)
    item.problem = None
    taking = Taking()
    taking.come(item)
    ((row,),) = [list(taken.parked.values()) for taken in taking.taken]
    assert (row.status, row.reason) == ("parked", "unreadable")
