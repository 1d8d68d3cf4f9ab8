"""The lag is what the brokers have and Postgres hasn't, partition by partition."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from time import time
from uuid import uuid4

import pytest
import yaml
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from sitelog.deploy._state import write_private
from sitelog.streams._event import Event
from sitelog.streams._offsets import Bounds, Offsets, Place, Spot
from sitelog.streams.examples import example
from tests.commands import Ran, config_file, sitelog
from tests.conftest import Services
from tests.rig import Rig, open_rig

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kafka")]

SITES = "customer-sites-events"


@pytest.fixture
async def rig(services: Services, database_template: str) -> AsyncIterator[Rig]:
    async with open_rig(services, database_template) as rig:
        yield rig


def new_sites(count: int) -> list[Event]:
    return [example("site_created", event_id=str(uuid4()), site_id=f"s-{uuid4()}") for _ in range(count)]


async def lag(rig: Rig, *arguments: str) -> Ran:
    return await sitelog(config_file(rig.services, rig.database), "lag", *arguments)


async def test_partitions_that_nobody_has_claimed_are_behind_by_all_that_they_have(rig: Rig) -> None:
    await rig.ledger.append_all(new_sites(60))
    told = (await lag(rig, "--json")).json()
    assert len(told["partitions"]) == 9
    assert {(one["position"], one["owner"]) for one in told["partitions"]} == {(None, None)}
    ends = {(one["topic"], one["partition"]): one["events"] for one in told["partitions"] if one["events"]}
    assert ends == rig.ledger.ends()
    assert [(total["consumer"], total["events"]) for total in told["totals"]] == [("projector", 60)]
    assert "nobody" in (await lag(rig)).out


async def test_what_a_worker_has_applied_isnt_behind_and_what_comes_after_its_end_is(rig: Rig) -> None:
    await rig.ledger.append_all(new_sites(60))
    worker = await rig.worker()
    await rig.applied()
    caught_up = await lag(rig, "--json", "--max-events", "0", "--max-seconds", "0")
    assert caught_up.code == 0
    assert {(one["events"], one["seconds"]) for one in caught_up.json()["partitions"]} == {(0, 0.0)}
    assert {one["owner"].rpartition(":")[2] for one in caught_up.json()["partitions"]} == {str(worker.process.pid)}

    await worker.stop()
    appended = len(rig.ledger.entries)
    await rig.ledger.append_all(new_sites(30))
    (total,) = (await lag(rig, "--json")).json()["totals"]
    oldest = time() - rig.ledger.entries[appended].append_time.timestamp()
    assert total["events"] == 30
    assert oldest - 5 < total["seconds"] < oldest + 1
    for arguments, code in ((("--max-events", "30"), 0), (("--max-events", "29"), 1), (("--max-seconds", "0"), 1)):
        assert (await lag(rig, *arguments)).code == code
    assert re.search(r"^ all +30 ", (await lag(rig)).out, re.MULTILINE)


async def test_watching_goes_on_until_a_limit_is_exceeded(rig: Rig) -> None:
    watching = asyncio.create_task(lag(rig, "--watch", "0.5", "--max-events", "0", "--json"))
    await rig.ledger.append_all(new_sites(5))
    async with asyncio.timeout(30):
        ran = await watching
    assert ran.code == 1
    assert ran.json_lines()[-1]["ok"] is False


async def test_events_that_were_deleted_before_they_were_applied_are_a_problem(rig: Rig) -> None:
    await rig.ledger.append_all(new_sites(60))
    worker = await rig.worker()
    await rig.applied()
    await worker.stop()
    await rig.ledger.append_all(new_sites(60))
    topic, partition = next(place for place in rig.ledger.ends() if place[0] == SITES)
    end = rig.ledger.ends()[topic, partition]
    admin = AIOKafkaAdminClient(bootstrap_servers=rig.settings.kafka_config.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before_offset=end)})
    finally:
        await admin.close()
    for arguments in ((), ("--max-events", "1000000")):
        ran = await lag(rig, *arguments)
        assert ran.code == 1
        assert f"{topic}[{partition}]: " in ran.out
        assert "events were deleted before they were applied" in ran.out
    assert (await lag(rig, "--json")).json()["ok"] is False


async def test_a_topic_that_isnt_there_is_a_problem_and_isnt_created(rig: Rig) -> None:
    path = config_file(rig.services, rig.database)
    values = yaml.safe_load(path.read_text())
    values["kafka_config"]["topics"]["another-topic"] = values["kafka_config"]["topics"][SITES] | {"partitions": 1}
    write_private(path, yaml.safe_dump(values))
    for _ in range(2):
        ran = await sitelog(path, "lag", "--max-events", "1000000")
        assert ran.code == 1
        assert "another-topic[0]: Kafka has no such partition" in ran.out


async def test_records_are_looked_up_by_offset_whoever_else_reads_there(rig: Rig) -> None:
    await rig.ledger.append_all(new_sites(60))
    (topic, partition), end = next((place, end) for place, end in rig.ledger.ends().items() if end > 2)
    place = Place(topic, partition)
    times = {
        entry.answer.result().offset: entry.append_time
        for entry in rig.ledger.entries
        if entry.place == (topic, partition)
    }
    async with Offsets(rig.settings) as offsets:
        assert await offsets.bounds([place, Place(topic, 99), Place("no-topic", 0)]) == {place: Bounds(0, end)}
        found = await offsets.append_times([Spot(*place, 0), Spot(*place, 2)])
        assert found == {Spot(*place, offset): times[offset] for offset in (0, 2)}
        # An offset that isn't there yet: to do without is all that is left.
        assert await offsets.append_times([Spot(*place, end)]) == {}


@pytest.mark.parametrize("away", ["kafka", "postgres"])
async def test_what_cant_be_reached_is_named(rig: Rig, away: str) -> None:
    path = config_file(rig.services, rig.database, read_replica=None)
    values = yaml.safe_load(path.read_text())
    if away == "kafka":
        values["kafka_config"]["bootstrap_servers"] = ["127.0.0.1:1"]
    else:
        values["database_config"]["primary"]["port"] = 1
    write_private(path, yaml.safe_dump(values))
    ran = await sitelog(path, "lag")
    assert ran.code == 69
    assert ran.err.startswith("error: ")
    assert "127.0.0.1:1" in ran.err


def test_a_watch_is_bounded(tmp_path: Path) -> None:
    for seconds in ("0", "0.1", "86400"):
        assert asyncio.run(sitelog(tmp_path, "lag", "--watch", seconds)).code == 2
