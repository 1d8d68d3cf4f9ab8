"""What the benchmark's peers are given: that it is the same events, and the versions that the page names."""

import re
from xml.etree import ElementTree as ET

import orjson
import pytest

from sitelog.deploy._jars import KAFKA_VERSION
from tests.benchmarks import debezium, flink
from tests.benchmarks.contenders import CONTENDERS, DEFAULT
from tests.benchmarks.events import Life, Site
from tests.benchmarks.latest import COLUMNS
from tests.benchmarks.peer import bundle_folder
from tests.benchmarks.rows import rows

EVENTS, SITES = 600, 20
BUNDLES = [debezium.BUNDLE, flink.BUNDLE]


def test_each_row_is_its_site_after_the_event_and_the_last_ones_are_what_was_produced():
    life = Life(EVENTS, SITES)
    versions: dict[str, int] = {}
    last: dict[str, dict] = {}
    for message in rows(life.messages()):
        row = orjson.loads(message.value)
        assert list(row) == list(COLUMNS)
        assert row["site_id"] == message.key.decode()
        assert row["version"] == versions.get(row["site_id"], 0) + 1
        versions[row["site_id"]], last[row["site_id"]] = row["version"], row

    assert sum(versions.values()) == EVENTS
    names = ["site_name", *Site._fields[1:]]
    assert {site_id: Site(*(row[name] for name in names)) for site_id, row in last.items()} == life.sites


def test_connect_is_told_of_every_column_with_its_type():
    schema = orjson.loads(debezium.row_schema())
    assert [field["field"] for field in schema["fields"]] == list(COLUMNS)
    assert {field["type"] for field in schema["fields"]} == {"string", "double", "int64"}


def dependencies(bundle) -> dict[str, str]:
    found = ET.parse(bundle.pom).getroot().findall(".//{*}dependency")  # noqa: S314 - our own file
    return {one.findtext("{*}artifactId"): one.findtext("{*}version") for one in found}


def test_kafka_connect_is_the_brokers_version():
    assert dependencies(debezium.BUNDLE)["connect-runtime"] == KAFKA_VERSION
    assert dependencies(debezium.BUNDLE)["connect-json"] == KAFKA_VERSION


def test_the_versions_that_the_page_names_are_those_that_run():
    assert dependencies(debezium.BUNDLE)["debezium-connector-jdbc"] == debezium.VERSION
    assert dependencies(flink.BUNDLE)["flink-table-runtime"] == flink.VERSION


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.title)
def test_jars_of_another_pom_are_in_another_folder(bundle):
    assert re.fullmatch(r"[a-z]+-[\w.]+-[0-9a-f]{12}", bundle_folder(bundle).name)


def test_everybody_has_a_name_and_either_a_module_or_a_peer():
    assert len({contender.name for contender in CONTENDERS}) == len(CONTENDERS)
    assert all(bool(contender.module) != bool(contender.peer) for contender in CONTENDERS)
    assert set(DEFAULT) <= set(CONTENDERS)
