"""The contracts that sites run under, ended ones included."""

from datetime import date
from typing import NamedTuple

from sitelog.projections._columns import Json
from sitelog.projections._json import json_of
from sitelog.projections._projection import Field, Key, Projection, field_of
from sitelog.streams.events import (
    ContractCreated,
    ContractInfo,
    ContractTerminated,
    ContractUpdated,
    ContractValues,
    SiteCreated,
    SiteUpdated,
)


class Contract(NamedTuple):
    """One contract of one site."""

    site_id: str
    contract_id: str
    contract_type: str | None
    billing_cycle: str | None
    billing_configuration: Json | None
    start_date: date | None
    end_date: date | None
    terminated_on: date | None
    termination_reason: str | None


contracts = Projection(
    name="contracts",
    version=1,
    key=("site_id", "contract_id"),
    row=Contract,
    indexes=[("contract_id",)],
)

FIELDS = {
    "contract_type": field_of("contract_type"),
    "billing_cycle": field_of("billing_cycle"),
    "billing_configuration": Field(("billing_configuration",), lambda values: (json_of(values.billing_configuration),)),
    "start_date": field_of("start_date"),
    "end_date": field_of("end_date"),
}


def contract(site_id: str, contract_id: str, values: ContractValues | ContractInfo) -> Contract:
    """Build a running contract's row."""
    return Contract(
        site_id,
        contract_id,
        values.contract_type,
        values.billing_cycle,
        json_of(values.billing_configuration),
        values.start_date,
        values.end_date,
        None,
        None,
    )


@contracts.creates(ContractCreated)
def create(event: ContractCreated) -> Contract:
    """Begin a contract."""
    return contract(event.site_id, event.contract_id, event.contract_data)


contracts.merges(ContractUpdated, FIELDS)


@contracts.changes(ContractTerminated)
def terminate(row: Contract, event: ContractTerminated) -> Contract:
    """Keep the row: billing needs ended contracts too."""
    return row._replace(terminated_on=event.termination_date, termination_reason=event.reason)


def named_by_site(event: SiteCreated) -> Key | None:
    """Return the key of the contract that comes with the site, None where none does."""
    info = event.site_data.contract_info
    return None if info is None else (event.site_id, info.contract_id)


@contracts.records(SiteCreated, key=named_by_site)
def begin_with_site(row: Contract | None, event: SiteCreated) -> Contract | None:
    """Take the contract that a new site comes with."""
    info = event.site_data.contract_info
    return row if info is None else contract(event.site_id, info.contract_id, info)


def named_by_update(event: SiteUpdated) -> Key | None:
    """Return the key of the contract that the site's update carries, None where it takes one away."""
    info = event.new_values.contract_info if event.new_values else None
    return None if info is None else (event.site_id, info.contract_id)


@contracts.records(SiteUpdated, key=named_by_update, changed="contract_info")
def follow_site(row: Contract | None, event: SiteUpdated) -> Contract | None:
    """Take the contract that a site's update carries; one that has ended stays ended."""
    info = event.new_values.contract_info if event.new_values else None
    if info is None:
        return row
    taken = contract(event.site_id, info.contract_id, info)
    if row is None:
        return taken
    return taken._replace(terminated_on=row.terminated_on, termination_reason=row.termination_reason)
