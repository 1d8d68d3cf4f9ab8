"""Every schema file, and each one that is added, keeps the rules of the contract."""

import hashlib
import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import avro.schema
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from sitelog import schemas as package
from sitelog.schemas import EventSchema, load, newest
from sitelog.streams._writer import fingerprint_of

SCHEMAS = load()
PUBLISHED = Path(package.__file__).with_name("avro") / "fingerprints.json"

ids = [f"{schema.event_type}-{schema.version}" for schema in SCHEMAS]
every_schema = pytest.mark.parametrize("schema", SCHEMAS, ids=ids)

# The two customer documents' own names of data fields, and where each has its place.
PLACES = {
    "event_id": "site_created.event_id",
    "event_timestamp": "site_created.event_timestamp",
    "site_id": "site_created.site_id",
    "site_data": "site_created.site_data",
    "changed_fields": "site_updated.changed_fields",
    "old_values": "site_updated.old_values",
    "new_values": "site_updated.new_values",
    "source_system": "site_created.source_system",
    # Data mapping and templates of the billing integration.
    "name": "SiteValues.name",
    "site_name": "SiteValues.name",
    "address": "SiteValues.address",
    "territory_id": "SiteValues.territory_id",
    "territory_code": "TerritoryValues.code",
    "contract_info": "SiteValues.contract_info",
    "contract_type": "ContractValues.contract_type",
    "billing_cycle": "ContractValues.billing_cycle",
    "billing_frequency": "ContractValues.billing_cycle",
    "billing_configuration": "ContractValues.billing_configuration",
    # Site characteristics of the forecasting pipeline.
    "parking_capacity": "SiteValues.parking_capacity",
    "operating_hours": "SiteValues.operating_hours",
    "facility_type": "SiteValues.facility_type",
    "location_coordinates": "SiteValues.location_coordinates",
    "market_segment": "SiteValues.market_segment",
    # Historical performance.
    "monthly_revenue": "PerformanceValues.monthly_revenue",
    "occupancy_rates": "PerformanceValues.occupancy_rates",
    "seasonal_patterns": "PerformanceValues.seasonal_patterns",
    "growth_trends": "PerformanceValues.growth_trends",
    # Operational metrics.
    "labor_productivity": "PerformanceValues.labor_productivity",
    "cost_efficiency": "PerformanceValues.cost_efficiency",
    "service_quality": "PerformanceValues.service_quality",
    "customer_satisfaction": "PerformanceValues.customer_satisfaction",
    # Territories: boundaries as GeoJSON, and the assignment rules' approval.
    "boundaries": "TerritoryValues.boundary",
    "approval_required": "site_assigned_to_territory.approved_by",
}
REQUIRED_BY_THE_GUIDE = {
    "site_created": {"event_id", "event_timestamp", "site_id", "site_data"},
    "site_updated": {"event_id", "event_timestamp", "site_id", "changed_fields"},
}


def records(schema: Any) -> Iterator[dict[str, Any]]:
    """Every record within a schema, itself included."""
    if isinstance(schema, list):
        for branch in schema:
            yield from records(branch)
    elif isinstance(schema, dict):
        for inner in (schema.get("items"), schema.get("values")):
            yield from records(inner)
        if schema["type"] == "record":
            yield schema
            for field in schema["fields"]:
                yield from records(field["type"])


def named(schema: Any) -> Iterator[dict[str, Any]]:
    """Every record and enum within an event, without the event."""
    for record in list(records(schema)):
        if record is not schema:
            yield record
        for field in record["fields"]:
            if isinstance(field["type"], dict) and field["type"]["type"] == "enum":
                yield field["type"]


def places() -> set[str]:
    found = set()
    for event_type, schema in newest(SCHEMAS).items():
        for record in records(schema.schema):
            owner = event_type if record is schema.schema else record["name"]
            found |= {f"{owner}.{field['name']}" for field in record["fields"]}
    return found


@pytest.mark.parametrize("name", PLACES)
def test_every_data_field_of_the_customer_s_documents_has_a_place(name: str) -> None:
    assert PLACES[name] in places()


@pytest.mark.parametrize("event_type", REQUIRED_BY_THE_GUIDE)
def test_what_the_guide_requires_is_required(event_type: str) -> None:
    fields = {field["name"]: field for field in newest(SCHEMAS)[event_type].schema["fields"]}
    for name in REQUIRED_BY_THE_GUIDE[event_type]:
        assert "default" not in fields[name]
        assert not isinstance(fields[name]["type"], list)


@every_schema
def test_the_avro_package_takes_the_schema_too(schema: EventSchema) -> None:
    parsed = avro.schema.parse(schema.text)
    assert parsed.fullname == f"sitelog.events.{schema.record}"


@every_schema
def test_every_record_and_every_field_says_what_it_is(schema: EventSchema) -> None:
    for record in records(schema.schema):
        assert record["doc"].endswith(".")
        for field in record["fields"]:
            assert field["doc"].endswith("."), f"{record['name']}.{field['name']}"


@every_schema
def test_every_field_that_may_be_null_is_null_when_it_is_left_out(schema: EventSchema) -> None:
    for record in records(schema.schema):
        for field in record["fields"]:
            if isinstance(field["type"], list):
                assert field["type"][0] == "null"
                assert len(field["type"]) == 2
                assert field["default"] is None


@pytest.mark.parametrize("version", sorted({schema.version for schema in SCHEMAS}))
def test_a_nested_type_is_the_same_in_every_file_of_a_version(version: str) -> None:
    seen: dict[str, dict[str, Any]] = {}
    for schema in SCHEMAS:
        if schema.version == version:
            for one in named(schema.schema):
                assert seen.setdefault(one["name"], one) == one, f"{one['name']} in {schema.event_type}"


def test_one_topic_has_one_kind_of_entity_and_one_key() -> None:
    assert {(schema.topic, schema.entity, schema.key) for schema in SCHEMAS} == {
        ("customer-sites-events", "site", "site_id"),
        ("territory-events", "territory", "territory_id"),
    }


def compatible(reader: EventSchema, writer: EventSchema) -> bool:
    checked = ReaderWriterCompatibilityChecker().get_compatibility(
        avro.schema.parse(reader.text), avro.schema.parse(writer.text)
    )
    return checked.compatibility is SchemaCompatibilityType.compatible


PAIRS = [pair for pair in combinations(SCHEMAS, 2) if pair[0].event_type == pair[1].event_type]


@pytest.mark.parametrize(("one", "other"), [(schema, schema) for schema in SCHEMAS] + PAIRS)
def test_any_version_reads_any_other(one: EventSchema, other: EventSchema) -> None:
    assert compatible(one, other)
    assert compatible(other, one)


def test_the_check_would_notice_an_incompatible_version() -> None:
    first = SCHEMAS[0]
    fields = [*first.schema["fields"], {"name": "new", "type": "string"}]
    changed = json.dumps({**first.schema, "fields": fields})
    checked = ReaderWriterCompatibilityChecker().get_compatibility(
        avro.schema.parse(changed), avro.schema.parse(first.text)
    )
    assert checked.compatibility is SchemaCompatibilityType.incompatible


def without_docs(schema: Any) -> Any:
    if isinstance(schema, list):
        return [without_docs(one) for one in schema]
    if isinstance(schema, dict):
        return {key: without_docs(value) for key, value in schema.items() if key != "doc"}
    return schema


def digest(schema: EventSchema) -> str:
    """All of the schema but its sentences, which may get better."""
    plain = json.dumps(without_docs(dict(schema.schema)), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()


def test_a_published_schema_never_changes() -> None:
    # A new version adds its line here; a line that is there stays, and so does its file.
    published = json.loads(PUBLISHED.read_text())
    found = {
        f"{schema.event_type}-{schema.version}": {
            "fingerprint": fingerprint_of(schema.schema).to_bytes(8, "little", signed=True).hex(),
            "sha256": digest(schema),
        }
        for schema in SCHEMAS
    }
    assert found == published


def test_fingerprints_differ() -> None:
    assert len({fingerprint_of(schema.schema) for schema in SCHEMAS}) == len(SCHEMAS)
