"""What each read model makes of its events."""

from datetime import date
from decimal import Decimal

import orjson
import pytest

from sitelog.projections._fold import Waits
from sitelog.streams._event import Event
from sitelog.streams.events import (
    ContactChanged,
    ContactRemoved,
    ContactValues,
    ContractCreated,
    ContractInfo,
    ContractTerminated,
    ContractUpdated,
    ContractValues,
    PerformanceRecorded,
    PerformanceValues,
    SiteCreated,
    SiteDeleted,
    SiteUpdated,
    SiteValues,
    TerritoryBoundaryChanged,
    TerritoryDeleted,
    TerritoryUpdated,
    TerritoryValues,
)
from sitelog.streams.examples import example
from tests.sites import Folded, day

CREATED = example("site_created")
SITE = CREATED.entity_id


def info(contract_id: str, **values: str) -> ContractInfo:
    return ContractInfo.model_validate({"contract_id": contract_id, **values})


# customer_sites


def test_a_site_has_every_field_that_its_producer_knows() -> None:
    assert Folded([CREATED]).row("customer_sites")._asdict() == {
        "site_id": "site-1",
        "site_name": "Harbour View Garage",
        "address_line1": "12 Harbour Street",
        "address_line2": None,
        "city": "Baltimore",
        "region": "MD",
        "postal_code": "21202",
        "country": "US",
        "latitude": 39.2833,
        "longitude": -76.6087,
        "territory_id": "mid-atlantic",
        "contract_id": "contract-1",
        "parking_capacity": 420,
        "operating_hours": '[{"weekday":"MONDAY","opens":"06:00","closes":"24:00"},'
        '{"weekday":"SATURDAY","opens":"08:00","closes":"02:00"}]',
        "facility_type": "garage",
        "market_segment": "hospitality",
        "created_at": CREATED.event_timestamp,
        "deleted_at": None,
    }


def test_a_site_of_which_nothing_is_known_has_nothing() -> None:
    row = Folded([SiteCreated(site_id="bare", site_data=SiteValues())]).row("customer_sites")
    assert [column for column, value in row._asdict().items() if value is not None] == ["site_id", "created_at"]


def test_only_the_fields_that_are_meant_change() -> None:
    new = SiteValues(name="Marina", market_segment="ignored")
    folded = Folded([CREATED, SiteUpdated(site_id=SITE, changed_fields=("name", "address"), new_values=new)])
    before, after = Folded([CREATED]).row("customer_sites"), folded.row("customer_sites")
    gone = dict.fromkeys(("address_line1", "address_line2", "city", "region", "postal_code", "country"))
    assert after == before._replace(site_name="Marina", **gone)


def test_a_deleted_site_stays_and_takes_no_updates() -> None:
    gone = SiteDeleted(site_id=SITE, event_timestamp=day(9))
    late = SiteUpdated(site_id=SITE, changed_fields=("name",), new_values=SiteValues(name="Late"))
    folded = Folded([CREATED, gone, late])
    row = folded.row("customer_sites")
    assert (row.site_name, row.deleted_at) == ("Harbour View Garage", day(9))
    assert [(c.reason, c.resolution) for c in folded.conflicts] == [("deleted", "reject")]


def test_a_site_that_comes_back_is_a_new_one() -> None:
    back = SiteCreated(site_id=SITE, event_timestamp=day(20), site_data=SiteValues(name="Reborn"))
    folded = Folded([CREATED, SiteDeleted(site_id=SITE), back])
    row = folded.row("customer_sites")
    assert (row.site_name, row.city, row.created_at, row.deleted_at) == ("Reborn", None, day(20), None)
    assert folded.conflicts == []
    assert folded.version("customer_sites") == 3


def test_a_sites_version_counts_all_of_its_events() -> None:
    events: list[Event] = [
        CREATED,
        example("site_updated"),
        example("site_assigned_to_territory"),
        example("performance_recorded"),
        ContractCreated(site_id=SITE, contract_id="contract-2", contract_data=ContractValues()),
        example("contract_updated"),
        example("contract_terminated"),
        example("contact_added"),
        example("contact_changed"),
        example("contact_removed"),
        example("site_deleted"),
    ]
    for number, _ in enumerate(events, 1):
        assert Folded(events[:number]).version("customer_sites") == number


@pytest.mark.parametrize(
    "event_type",
    [
        "site_updated",
        "site_deleted",
        "site_assigned_to_territory",
        "contract_created",
        "contract_updated",
        "contract_terminated",
        "contact_added",
        "contact_changed",
        "contact_removed",
        "performance_recorded",
        "territory_updated",
        "territory_boundary_changed",
        "territory_deleted",
    ],
)
def test_whatever_comes_before_the_creation_waits_and_leaves_nothing(event_type: str) -> None:
    folded = Folded()
    with pytest.raises(Waits):
        folded.take(example(event_type))
    assert not any(folded.fold.rows.values())
    assert not any(folded.fold.ranges.values())


# contracts


def test_a_site_brings_its_contract_along() -> None:
    row = Folded([CREATED]).row("contracts")
    assert (row.contract_id, row.billing_cycle, row.end_date) == ("contract-1", "monthly", date(2026, 12, 31))
    assert orjson.loads(row.billing_configuration) == {"invoice_day": "1"}


def test_the_newest_contract_is_the_sites() -> None:
    folded = Folded([CREATED, ContractCreated(site_id=SITE, contract_id="new", contract_data=ContractValues())])
    assert folded.row("customer_sites").contract_id == "new"
    assert [row.contract_id for row in folded.rows("contracts")] == ["contract-1", "new"]


def test_an_update_of_the_site_can_bring_a_contract_along() -> None:
    values = SiteValues(contract_info=info("lease", contract_type="lease"))
    folded = Folded([CREATED, SiteUpdated(site_id=SITE, changed_fields=("contract_info",), new_values=values)])
    assert folded.row("customer_sites").contract_id == "lease"
    assert [row.contract_type for row in folded.rows("contracts")] == ["management", "lease"]


@pytest.mark.parametrize("values", [None, SiteValues(), SiteValues(name="x")])
def test_an_update_that_takes_the_contract_from_the_site_leaves_the_contract(values: SiteValues | None) -> None:
    folded = Folded([CREATED, SiteUpdated(site_id=SITE, changed_fields=("contract_info",), new_values=values)])
    assert folded.row("customer_sites").contract_id is None
    assert folded.row("contracts").contract_id == "contract-1"


def test_a_contract_is_updated_field_by_field() -> None:
    new = ContractValues(billing_cycle="weekly", contract_type="ignored")
    update = ContractUpdated(site_id=SITE, contract_id="contract-1", changed_fields=("billing_cycle",), new_values=new)
    before, after = Folded([CREATED]).row("contracts"), Folded([CREATED, update]).row("contracts")
    assert after == before._replace(billing_cycle="weekly")


def test_a_terminated_contract_stays() -> None:
    ended = ContractTerminated(
        site_id=SITE, contract_id="contract-1", termination_date=date(2026, 6, 30), reason="sold"
    )
    row = Folded([CREATED, ended]).row("contracts")
    assert (row.terminated_on, row.termination_reason) == (date(2026, 6, 30), "sold")


def test_a_terminated_contract_stays_so_when_an_update_of_its_site_still_names_it() -> None:
    ended = ContractTerminated(site_id=SITE, contract_id="contract-1", termination_date=date(2026, 6, 30))
    values = SiteValues(contract_info=info("contract-1", billing_cycle="yearly"))
    late = SiteUpdated(site_id=SITE, changed_fields=("contract_info",), new_values=values)
    row = Folded([CREATED, ended, late]).row("contracts")
    assert (row.billing_cycle, row.terminated_on) == ("yearly", date(2026, 6, 30))


@pytest.mark.parametrize(("expected_version", "conflicts"), [(2, 0), (1, 1), (3, 1)])
def test_an_update_of_a_contract_expects_the_contracts_version(expected_version: int, conflicts: int) -> None:
    def cycle(value: str, **values: int) -> ContractUpdated:
        new = ContractValues(billing_cycle=value)
        changed = ("billing_cycle",)
        return ContractUpdated(site_id=SITE, contract_id="contract-1", changed_fields=changed, new_values=new, **values)

    renamed = SiteUpdated(site_id=SITE, changed_fields=("name",), new_values=SiteValues(name="Harbour"))
    folded = Folded([CREATED, renamed, cycle("weekly")])
    assert folded.version("customer_sites") == 3
    folded.take(cycle("yearly", expected_version=expected_version))
    assert len(folded.conflicts) == conflicts


def test_a_contract_of_another_site_is_another_contract() -> None:
    other = SiteCreated(site_id="other", site_data=CREATED.site_data)
    assert [row.site_id for row in Folded([CREATED, other]).rows("contracts")] == ["other", "site-1"]


# contacts


def test_a_removed_contact_stays_and_takes_no_changes() -> None:
    gone = ContactRemoved(site_id=SITE, contact_id="contact-1", event_timestamp=day(9))
    change = ContactChanged(
        site_id=SITE, contact_id="contact-1", changed_fields=("name",), new_values=ContactValues(name="Late")
    )
    folded = Folded([CREATED, example("contact_added"), gone, change])
    row = folded.row("contacts")
    assert (row.name, row.removed_at) == ("Front Desk", day(9))
    assert [conflict.reason for conflict in folded.conflicts] == ["deleted"]
    assert folded.version("customer_sites") == 3, "a change that was refused is no version of the site"


def test_a_contact_that_comes_back_is_there_again() -> None:
    folded = Folded([CREATED, example("contact_added"), example("contact_removed"), example("contact_added")])
    assert folded.row("contacts").removed_at is None
    assert folded.conflicts == []


# performance_history


def test_a_period_that_is_recorded_again_is_corrected() -> None:
    again = PerformanceRecorded(
        site_id=SITE,
        period_start=date(2025, 6, 1),
        period_end=date(2025, 6, 30),
        metrics=PerformanceValues(monthly_revenue=Decimal("1.50"), occupancy_rates=(0.5, 1.0)),
    )
    folded = Folded([CREATED, example("performance_recorded"), again])
    row = folded.row("performance_history")
    assert (row.monthly_revenue, row.occupancy_rates, row.currency) == (Decimal("1.50"), "[0.5,1.0]", None)
    assert folded.version("performance_history") == 2


# territories


def test_a_territory_takes_updates_and_new_boundaries() -> None:
    created = example("territory_created")
    territory_id = created.entity_id
    update = TerritoryUpdated(
        territory_id=territory_id, changed_fields=("manager",), new_values=TerritoryValues(manager="somebody")
    )
    boundary = '{"type":"Polygon","coordinates":[]}'
    old = TerritoryBoundaryChanged(territory_id=territory_id, boundary=boundary, old_boundary='{"type":"Point"}')
    gone = TerritoryDeleted(territory_id=territory_id, event_timestamp=day(9))
    folded = Folded([created, update, old, gone])
    row = folded.row("territories")
    assert (row.name, row.manager, row.boundary, row.deleted_at) == ("Mid-Atlantic", "somebody", boundary, day(9))
    assert [(c.field, c.reason) for c in folded.conflicts] == [("boundary", "old_value")]


def test_a_boundary_that_only_looks_different_is_no_conflict() -> None:
    created = example("territory_created")
    same = orjson.dumps(orjson.loads(created.territory_data.boundary), option=orjson.OPT_INDENT_2).decode()
    change = TerritoryBoundaryChanged(territory_id=created.entity_id, boundary='{"type":"Polygon"}', old_boundary=same)
    assert Folded([created, change]).conflicts == []
