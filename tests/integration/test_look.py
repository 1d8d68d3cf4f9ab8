"""What the looking commands say is what is there: log, stories, parked events, for people and for scripts."""

import asyncio
import errno
import json
import os
import signal
import sys
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from sitelog.deploy.postgres import connect_as_superuser
from sitelog.projections import _database, _look, _look_entity
from sitelog.projections._database import session
from sitelog.projections._look import looking
from sitelog.projections._look_log import Reader, Wanted, stretches, tail
from sitelog.schemas import load, newest
from sitelog.streams._event import Event
from sitelog.streams.errors import UnavailableError
from sitelog.streams.examples import example
from sitelog.streams.settings import Settings
from tests.commands import config_file, sitelog
from tests.conftest import Services
from tests.partition import Partition, open_partition

pytestmark = pytest.mark.services

MIB = 1_048_576


@pytest.fixture
async def partition(database: Settings) -> AsyncIterator[Partition]:
    async with open_partition(database) as partition:
        yield partition


@pytest.fixture
def config(services: Services, database: Settings) -> Path:
    return config_file(services, database.database_config.primary.database)


def event(kind: str, **values: Any) -> Event:
    return example(kind, event_id=str(uuid4()), **values)


async def feed_a_life(partition: Partition) -> list[Event]:
    """A site that begins, changes, moves, meets a conflict, and is stopped by something unreadable."""
    life = [
        event("site_created", event_timestamp="2026-01-01T00:00:00Z"),
        event("site_updated", source_system="crm", actor="an editor"),
        event("site_assigned_to_territory", effective_at="2026-06-01T00:00:00Z"),
        event("contact_added"),
        event("site_updated", changed_fields=["name"], old_values={"name": "Not It"}, new_values={"name": "New Name"}),
    ]
    await partition.feed(*life)
    await partition.feed(("site-1", b"\x00no event"), event("site_deleted"))
    return life


# Sites and territories.


async def test_a_site_is_told_as_a_person_would_read_it(partition: Partition, config: Path) -> None:
    await feed_a_life(partition)
    ran = await sitelog(config, "site", "site-1")
    assert ran.code == 0, ran.err
    for part in (
        "site name         New Name",
        "2026-01-01 00:00:00Z  2026-06-01 00:00:00Z  mid-atlantic",
        "2026-06-01 00:00:00Z  until now             north-east",
        "5 events\n",
        "site_updated  by an editor via crm  customer-sites-events[0]@1 #2",
        "      name: Harbour View Garage → Harbour View, parking capacity: 420 → 400",
        "      conflict: name: its producer had seen it with Not It, found Harbour View; the new value was taken",
        "2 events not applied",
        "parked since",
        "customer-sites-events[0]@5",
    ):
        assert part in ran.out


async def test_a_site_as_json_has_its_rows_events_conflicts_and_what_is_parked(
    partition: Partition, config: Path
) -> None:
    life = await feed_a_life(partition)
    told = (await sitelog(config, "site", "site-1", "--json")).json()
    assert [row["version"] for row in told["rows"]["customer_sites"]] == [5]
    assert told["rows"]["customer_sites"][0]["operating_hours"][0]["weekday"] == "MONDAY"
    assert [row["territory_id"] for row in told["rows"]["territory_assignments"]] == ["mid-atlantic", "north-east"]
    assert [row["contact_id"] for row in told["rows"]["contacts"]] == ["contact-1"]
    assert [one["event_id"] for one in told["newest"]] == [one.event_id for one in life]
    assert [(one["offset"], one["log_seq"]) for one in told["newest"]] == [(n, n + 1) for n in range(5)]
    assert told["newest"][4]["event"]["new_values"]["name"] == "New Name"
    assert [(one["field"], one["expected"], one["found"]) for one in told["conflicts"]] == [
        ("name", "Not It", "Harbour View")
    ]
    assert [(one["kafka_offset"], one["status"]) for one in told["parked"]] == [(5, "parked"), (6, "behind")]


async def test_only_the_newest_events_are_told_and_how_many_there_are(partition: Partition, config: Path) -> None:
    life = await feed_a_life(partition)
    ran = await sitelog(config, "site", "site-1", "-n", "2")
    assert "5 events, the newest 2 of them" in ran.out
    told = (await sitelog(config, "site", "site-1", "-n", "2", "--json")).json()
    assert (told["events"], [one["event_id"] for one in told["newest"]]) == (5, [one.event_id for one in life[3:]])


async def test_only_the_first_parked_events_are_told_and_how_many_there_are(
    partition: Partition, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await feed_a_life(partition)
    monkeypatch.setattr(_look_entity, "PARKED_MAX", 1)
    ran = await sitelog(config, "site", "site-1")
    assert "2 events not applied, the first 1 of them" in ran.out
    told = (await sitelog(config, "site", "site-1", "--json")).json()
    assert (told["parked_events"], [one["kafka_offset"] for one in told["parked"]]) == (2, [5])


async def test_a_site_is_told_from_views_that_another_release_has_made(
    partition: Partition, config: Path, services: Services, database: Settings
) -> None:
    await feed_a_life(partition)
    superuser = await connect_as_superuser(services.state, database.database_config.primary.database)
    try:
        await superuser.execute("ALTER VIEW public.customer_sites RENAME parking_capacity TO parking_places")
        await superuser.execute("ALTER VIEW public.contacts RENAME TO people")
    finally:
        await superuser.close()
    told = (await sitelog(config, "site", "site-1", "--json")).json()
    assert told["rows"]["contacts"] == []
    assert [row["territory_id"] for row in told["rows"]["territory_assignments"]] == ["mid-atlantic", "north-east"]
    (site,) = told["rows"]["customer_sites"]
    assert site["site_name"] == "New Name"
    assert "parking_capacity" not in site
    assert (told["events"], len(told["parked"])) == (5, 2)
    assert "5 events" in (await sitelog(config, "site", "site-1")).out


async def test_an_unknown_site_is_a_no(partition: Partition, config: Path) -> None:
    await feed_a_life(partition)
    for arguments in (("site", "site-2"), ("site", "site-2", "--json"), ("site", "site-2", "--at", "2026-03-01")):
        assert (await sitelog(config, *arguments)).code == 1
    assert (await sitelog(config, "site", "site-2")).out == "Nothing is known of a site site-2\n"
    assert (await sitelog(config, "territory", "nowhere")).code == 1


async def test_a_site_of_which_only_something_parked_is_known_is_known(partition: Partition, config: Path) -> None:
    await partition.feed(("site-9", b"no event"))
    ran = await sitelog(config, "site", "site-9")
    assert ran.code == 0
    assert "1 event not applied" in ran.out


@pytest.mark.parametrize(
    ("at", "code", "said"),
    [
        ("2025-12-31T23:59:59Z", 1, "belonged to no territory"),
        ("2026-01-01T00:00:00Z", 0, "belonged to mid-atlantic, from 2026-01-01 00:00:00Z until 2026-06-01 00:00:00Z"),
        ("2026-05-31T23:59:59Z", 0, "belonged to mid-atlantic"),
        (
            "2026-06-01",
            0,
            "belonged to north-east, from 2026-06-01 00:00:00Z until now (strategic_account, approved by",
        ),
        ("2026-06-01T02:00:00+02:00", 0, "belonged to north-east"),
        ("2026-06-01T01:59:59+02:00", 0, "belonged to mid-atlantic"),
    ],
)
async def test_the_owner_of_a_site_at_a_time_is_said(
    partition: Partition, config: Path, at: str, code: int, said: str
) -> None:
    await feed_a_life(partition)
    ran = await sitelog(config, "site", "site-1", "--at", at)
    assert (ran.code, said in ran.out) == (code, True), ran
    owner = (await sitelog(config, "site", "site-1", "--at", at, "--json")).json()["owner"]
    assert (owner is None) == bool(code)


async def test_a_territory_is_told_with_the_number_of_its_sites(partition: Partition, config: Path) -> None:
    await feed_a_life(partition)
    partition.topic = "territory-events"
    partition.records.clear()
    created = event("territory_created", territory_id="north-east")
    await partition.feed(created)
    ran = await sitelog(config, "territory", "north-east")
    assert ran.code == 0
    assert "territory north-east, 1 site now" in ran.out
    assert "territory_created" in ran.out
    assert (await sitelog(config, "territory", "north-east", "--json")).json()["sites"] == 1


async def test_a_site_and_a_territory_with_one_id_are_told_apart(partition: Partition, config: Path) -> None:
    await partition.feed(event("site_created", site_id="both"), ("both", b"no event"))
    partition.topic = "territory-events"
    partition.records.clear()
    await partition.feed(event("territory_created", territory_id="both"))
    site = (await sitelog(config, "site", "both", "--json")).json()
    territory = (await sitelog(config, "territory", "both", "--json")).json()
    assert [one["event_type"] for one in site["newest"]] == ["site_created"]
    assert [one["event_type"] for one in territory["newest"]] == ["territory_created"]
    assert (site["events"], territory["events"], len(site["parked"]), territory["parked"]) == (1, 1, 1, [])


# The log.


async def test_the_log_shows_the_newest_events_in_the_order_in_which_they_were_applied(
    partition: Partition, config: Path
) -> None:
    life = await feed_a_life(partition)
    lines = (await sitelog(config, "log", "-n", "2", "--json")).json_lines()
    assert [line["event_id"] for line in lines] == [one.event_id for one in life[-2:]]
    assert lines[0]["event"]["contact"]["name"] == "Front Desk"
    text = (await sitelog(config, "log", "-n", "2")).out.splitlines()
    assert len(text) == 2
    assert text[1].endswith("customer-sites-events[0]@4 #5 site_updated site-1  name: Not It → New Name")


async def test_the_log_is_filtered_by_entity_type_topic_partition_and_time(partition: Partition, config: Path) -> None:
    await feed_a_life(partition)
    await partition.feed(event("site_created", site_id="site-2"))

    async def shown(*arguments: str) -> list[int]:
        return [line["log_seq"] for line in (await sitelog(config, "log", "--json", *arguments)).json_lines()]

    assert await shown("--entity", "site-1") == [1, 2, 3, 4, 5]
    assert await shown("--type", "site_created") == [1, 6]
    assert await shown("--type", "site_created", "--type", "contact_added") == [1, 4, 6]
    assert await shown("--topic", "customer-sites-events", "--partition", "0", "-n", "1") == [6]
    assert await shown("--partition", "1") == []
    # Records are a millisecond apart, from noon on.
    assert await shown("--since", "2026-11-21T12:00:00.003Z") == [4, 5, 6]
    assert await shown("--since", "2026-11-21T12:00:00.003Z", "-n", "2") == [5, 6]
    assert await shown("--since", "2026-11-22") == []
    assert await shown("--until", "2026-11-21T12:00:00.003Z") == [1, 2, 3]
    assert await shown("--until", "2026-11-21T12:00:00.003Z", "-n", "1") == [3]
    assert await shown("--since", "2026-11-21T12:00:00.001Z", "--until", "2026-11-21T12:00:00.003Z") == [2, 3]
    for first in ("0001-01-01", "0001-01-01T14:00:00+14:00"):
        assert await shown("--since", first) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--entity", "nobody"), 1),
        (("--topic", "no-topic"), 2),
        (("--type", "site_vanished"), 2),
        (("--since", "yesterday"), 2),
        (("--until", "2026-11-21T12:00:00Z"), 1),
        (("--until", "2026-11-22", "--follow"), 2),
        (("--since", "2026-11-22", "--until", "2026-11-22"), 2),
    ],
)
@pytest.mark.usefixtures("partition")
async def test_a_log_without_such_events_is_a_no_and_a_wrong_filter_is_refused(
    config: Path, arguments: tuple[str, ...], code: int
) -> None:
    assert (await sitelog(config, "log", *arguments)).code == code


async def test_events_before_a_time_are_found_by_halves(partition: Partition) -> None:
    await partition.feed(event("site_created"))
    for _ in range(20):
        await partition.feed(event("site_updated"))
    ingested = "SELECT ingest_time + interval '1 minute' FROM sitelog.event_log WHERE log_seq = $1"
    for seq in (1, 2, 11, 20, 21):
        since = await partition.connection.fetchval(ingested, seq)
        parts = await stretches(partition.connection, Wanted(topic=partition.topic, partition=0, since=since))
        assert [(part.after_seq, part.last_seq) for part in parts] == [(seq - 1, 21)]


async def test_a_long_log_is_read_in_little_memory(partition: Partition) -> None:
    await partition.feed(event("site_created"), *(event("site_updated") for _ in range(8_000)))
    parts = await stretches(partition.connection, Wanted())
    tracemalloc.start()
    try:
        count = 0
        async for _ in tail(partition.connection, parts, Wanted(), None):
            count += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 8_001
    assert peak < 2 * MIB


async def test_a_schema_that_only_the_log_knows_is_read(partition: Partition, config: Path) -> None:
    schema = dict(newest(load())["site_deleted"].schema)
    schema["fields"] = [field for field in schema["fields"] if field["name"] != "actor"]
    partition.registry.schemas[3] = json.dumps(schema)
    fingerprint = partition.codec.learn(partition.registry.schemas[3])
    deleted = event("site_deleted")
    writer = partition.codec._by_fingerprint[fingerprint]
    assert writer.fingerprint != partition.codec.decode(partition.codec.encode(deleted)).fingerprint
    await partition.feed(event("site_created"), ("site-1", b"\0\0\0\0\3" + without_actor(partition, deleted)))
    (line,) = (await sitelog(config, "log", "-n", "1", "--json")).json_lines()
    assert (line["event_type"], line["event"]["reason"]) == ("site_deleted", "demolished")


def without_actor(partition: Partition, deleted: Event) -> bytes:
    """The body of an event whose actor is null, without the byte that says so."""
    body = partition.codec.decode(partition.codec.encode(deleted)).body
    before = partition.codec.decode(partition.codec.encode(deleted.model_copy(update={"actor": "x"}))).body
    at = next(index for index, (one, other) in enumerate(zip(body, before, strict=False)) if one != other)
    return body[:at] + body[at + 1 :]


async def test_what_cant_be_read_is_shown_with_its_reason(partition: Partition, config: Path) -> None:
    await partition.feed(event("site_created"))
    reader = Reader(partition.connection)
    parts = await stretches(partition.connection, Wanted())
    (entry,) = [one async for one in tail(partition.connection, parts, Wanted(), 1)]
    assert isinstance(await reader.event(entry), Event)
    await partition.connection.execute(
        "INSERT INTO sitelog.event_log SELECT log_partition, 2, 1, gen_random_uuid(), event_type, entity_id, "
        "event_time, append_time, ingest_time, 42, headers, payload FROM sitelog.event_log"
    )
    (line,) = (await sitelog(config, "log", "-n", "1", "--json")).json_lines()
    assert line["event"] is None
    assert "fingerprint 42" in line["problem"]
    assert "can't be read" in (await sitelog(config, "log", "-n", "1")).out


@asynccontextmanager
async def following(config: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    command = (sys.executable, "-m", "sitelog.cli", "log", "--follow", "--json", *arguments, "--config", str(config))
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def next_line(process: asyncio.subprocess.Process) -> Any:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return json.loads(await process.stdout.readline())


async def test_following_the_log_shows_each_event_as_it_is_applied(partition: Partition, config: Path) -> None:
    await partition.feed(event("site_created"))
    async with following(config, "--type", "site_created", "--type", "site_deleted") as process:
        assert (await next_line(process))["log_seq"] == 1
        await partition.feed(event("site_updated"), event("site_created", site_id="site-2"))
        # Sooner than it asks by itself: Postgres has told it.
        assert (await next_line(process))["log_seq"] == 3
        await partition.feed(event("site_deleted"))
        assert (await next_line(process))["log_seq"] == 4
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130


async def test_following_ends_with_69_when_postgres_goes(
    partition: Partition, config: Path, services: Services, database: Settings
) -> None:
    await partition.feed(event("site_created"))
    superuser = await connect_as_superuser(services.state, database.database_config.primary.database)
    try:
        async with following(config) as process:
            await next_line(process)
            await superuser.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'sitelog log' AND datname = current_database()"
            )
            async with asyncio.timeout(20):
                assert await process.wait() == 69
            assert process.stderr is not None
            assert (await process.stderr.read()).decode().startswith("error: Postgres at ")
    finally:
        await superuser.close()


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EACCES, "Permission denied", "a.txt")]
)
async def test_the_error_of_a_file_is_not_said_to_be_postgres_s(database: Settings, error: OSError) -> None:
    with pytest.raises(OSError, match=str(error.strerror)) as raised:
        async with session(database.database_config.primary):
            raise error
    assert raised.value is error


# What is parked.


async def test_parked_entities_are_listed_with_their_culprit_and_how_many_are_behind(
    partition: Partition, config: Path
) -> None:
    await feed_a_life(partition)
    await partition.feed(("site-2", b"no event"), event("site_updated", site_id="site-3"), ("site-2", b"again"))
    listed = (await sitelog(config, "parked", "--json")).json()
    assert (listed["events"], listed["entities"]) == (5, 3)
    stopped = {one["entity_id"]: (one["status"], one["behind"]) for one in listed["stopped"]}
    assert stopped == {"site-1": ("parked", 1), "site-2": ("parked", 1), "site-3": ("waiting", 0)}
    ran = await sitelog(config, "parked", "list", "--limit", "1")
    assert ran.code == 0
    reasons = "unknown_schema 1, waiting 1, wrong_bytes 1"
    assert f"5 events put aside, 3 entities stopped ({reasons}), the first 1 row shown" in " ".join(ran.out.split())
    assert "site-1" in ran.out


async def test_parked_entities_are_listed_by_their_reason(partition: Partition, config: Path) -> None:
    await feed_a_life(partition)
    await partition.feed(("site-2", b"no event"), ("site-3", b"no event"))

    async def stopped(reason: str) -> list[str]:
        listed = (await sitelog(config, "parked", "--reason", reason, "--json")).json()
        assert list(listed["reasons"].items()) == [("wrong_bytes", 2), ("unknown_schema", 1)]
        return [one["entity_id"] for one in listed["stopped"]]

    assert await stopped("wrong_bytes") == ["site-2", "site-3"]
    assert await stopped("unknown_schema") == ["site-1"]
    assert await stopped("no_reason") == []


async def test_a_parked_event_is_shown_with_its_bytes(partition: Partition, config: Path) -> None:
    await partition.feed(("site-1", b"\x01no event"))
    (one,) = (await sitelog(config, "parked", "--json")).json()["stopped"]
    ran = await sitelog(config, "parked", "show", str(one["parked_id"]))
    assert ran.code == 0
    assert "value: 9 bytes" in ran.out
    assert "00000000  01 6e 6f 20 65 76 65 6e  74                       |.no event|" in ran.out
    shown = (await sitelog(config, "parked", "show", str(one["parked_id"]), "--json")).json()
    assert (shown["value"], shown["reason"], shown["kafka_offset"]) == ("AW5vIGV2ZW50", "wrong_bytes", 0)
    assert (await sitelog(config, "parked", "show", "4711")).code == 1
    unknown = await sitelog(config, "parked", "show", "4711", "--json")
    assert (unknown.code, unknown.json()) == (1, None)


@pytest.mark.usefixtures("kafka")
async def test_retry_says_what_it_did_and_ends_with_1_while_something_is_stopped(
    partition: Partition, config: Path
) -> None:
    await partition.feed(event("site_updated"), event("site_updated", site_id="site-2"))
    stopped = await sitelog(config, "parked", "retry", "site-1")
    assert stopped.code == 1
    assert "0 events applied; still stopped by" in stopped.out
    await partition.connection.execute(
        "UPDATE sitelog.parked_event SET key = 'site-3', value = $1 WHERE entity_id = 'site-2'",
        partition.codec.encode(event("site_created", site_id="site-3")),
    )
    unknown = await sitelog(config, "parked", "retry", "site-9")
    assert (unknown.code, unknown.out) == (1, "site-9 is not stopped\n")
    for arguments in ((), ("site-1", "--all")):
        assert (await sitelog(config, "parked", "retry", *arguments)).code == 2
    lines = (await sitelog(config, "parked", "retry", "--all", "--json")).json_lines()
    assert {line["entity_id"]: line["applied"] for line in lines} == {"site-1": 0, "site-2": 1}


@pytest.mark.usefixtures("kafka")
async def test_discarding_records_who_and_why(partition: Partition, config: Path) -> None:
    await partition.feed(event("site_created"), ("site-1", b"no event"), event("site_deleted"))
    (one,) = (await sitelog(config, "parked", "--json")).json()["stopped"]
    number = str(one["parked_id"])
    ran = await sitelog(config, "parked", "discard", number, "--reason", "a test record", "--by", "an operator")
    assert ran.code == 0, ran.err
    assert "1 event applied; it moves again" in ran.out
    shown = (await sitelog(config, "parked", "show", number, "--json")).json()
    assert (shown["status"], shown["closed_by"], shown["close_reason"]) == ("discarded", "an operator", "a test record")
    assert "by an operator: a test record" in (await sitelog(config, "site", "site-1")).out
    again = await sitelog(config, "parked", "discard", number, "--reason", "once more")
    assert (again.code, "No open event is put aside as" in again.out) == (1, True)
    again = await sitelog(config, "parked", "discard", number, "--reason", "once more", "--json")
    assert (again.code, again.json()) == (1, None)
    assert (await sitelog(config, "parked", "discard", number)).code == 2


# What producers write.


@pytest.mark.usefixtures("kafka")
async def test_what_a_producer_has_written_does_nothing_to_a_terminal(partition: Partition, config: Path) -> None:
    wild = "a\x1b[2J\n\u202eb"
    await partition.feed(
        event("site_created", site_id=wild, source_system=wild, actor=wild, site_data={"name": wild}),
        event("site_updated", site_id=wild, changed_fields=["name"], old_values={"name": f"{wild}!"}, new_values=None),
        (wild, b"no event"),
    )
    (one,) = (await sitelog(config, "parked", "--json")).json()["stopped"]
    assert one["entity_id"] == wild
    number = str(one["parked_id"])
    for arguments in (
        ("log",),
        ("site", wild),
        ("site", wild, "--at", "2026-01-01"),
        ("site", f"{wild}?"),
        ("parked",),
        ("parked", "show", number),
        ("parked", "retry", wild),
        ("parked", "discard", number, "--reason", "wild"),
        ("parked", "retry", wild),
    ):
        ran = await sitelog(config, *arguments)
        assert r"a\x1b[2J\n\u202eb" in ran.out, (arguments, ran)
        assert all(line.isprintable() for line in ran.out.split("\n")), (arguments, ran)


# Where they look.


LOOKING = [("site", "site-1"), ("territory", "t"), ("log",), ("parked",), ("position", "show")]


@pytest.mark.parametrize("arguments", LOOKING, ids=" ".join)
async def test_looking_asks_the_replica_where_there_is_one(
    arguments: tuple[str, ...], services: Services, database: Settings
) -> None:
    gone = config_file(services, database.database_config.primary.database, read_replica={"port": 1})
    ran = await sitelog(gone, *arguments)
    assert ran.code == 69
    assert "127.0.0.1:1, database" in ran.err


@pytest.mark.parametrize("arguments", LOOKING, ids=" ".join)
async def test_looking_asks_the_primary_where_there_is_no_replica(
    arguments: tuple[str, ...], services: Services, database: Settings, partition: Partition
) -> None:
    await partition.feed(event("site_created", site_data={"territory_id": "t"}))
    alone = config_file(services, database.database_config.primary.database, read_replica=None)
    ran = await sitelog(alone, *arguments)
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("arguments", [("site", "site-1"), ("parked",)], ids=" ".join)
async def test_nobody_waits_for_a_lock_for_ever(
    arguments: tuple[str, ...], services: Services, database: Settings, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_look, "STATEMENT_SECONDS_MAX", 0.5)
    superuser = await connect_as_superuser(services.state, database.database_config.primary.database)
    try:
        async with superuser.transaction(), asyncio.timeout(30):
            await superuser.execute("LOCK TABLE sitelog.parked_event IN ACCESS EXCLUSIVE MODE")
            ran = await sitelog(config, *arguments)
    finally:
        await superuser.close()
    assert ran.code == 69
    assert "failed: canceling statement due to statement timeout. Try again" in ran.err


async def test_nobody_waits_for_a_postgres_that_has_stopped_for_ever(
    database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_look, "STATEMENT_SECONDS_MAX", 0.5)
    monkeypatch.setattr(_database, "COMMAND_MARGIN_SECONDS", 0.5)
    backends = []

    async def look() -> None:
        async with asyncio.timeout(30), looking(database, "site") as connection, connection.transaction():
            backends.append(connection.get_server_pid())
            os.kill(backends[0], signal.SIGSTOP)
            await connection.fetchval("SELECT 1")

    try:
        with pytest.raises(UnavailableError, match=r"can't be reached: TimeoutError\. Is it running\?"):
            await look()
    finally:
        for backend in backends:
            os.kill(backend, signal.SIGCONT)


@pytest.mark.usefixtures("partition")
async def test_a_log_is_searched_for_as_long_as_that_takes(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_look, "STATEMENT_SECONDS_MAX", 0.001)
    assert (await sitelog(config, "log")).code == 1


@pytest.mark.parametrize("arguments", LOOKING, ids=" ".join)
async def test_a_database_without_the_schema_is_named(
    arguments: tuple[str, ...], services: Services, empty_database: Settings
) -> None:
    ran = await sitelog(config_file(services, empty_database.database_config.primary.database), *arguments)
    assert (ran.code, "run `sitelog db init`" in ran.err) == (70, True), ran
