"""Whatever comes out of a topic: the partition goes on, and only the entity that it is about stops, visibly."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from pydantic import ValidationError

from sitelog.streams._event import Event
from sitelog.streams._kafka import kafka_client_options
from sitelog.streams.append import Appender, EventTooLarge
from sitelog.streams.codec import Codec
from sitelog.streams.events import SiteCreated, SiteUpdated, SiteValues
from tests.conftest import Services
from tests.rig import Rig, open_rig
from tests.until import until
from tests.worker_process import WorkerProcess

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kafka")]

TOPIC = "customer-sites-events"
FIVE_MEGABYTES = 5 * 1_024 * 1_024

PUT_ASIDE = """
SELECT kafka_offset, entity_id, status, reason, message, key, value, headers
FROM sitelog.parked_event
JOIN sitelog.log_partition USING (log_partition)
WHERE topic = $1 AND partition = $2 AND kafka_offset >= $3
ORDER BY kafka_offset
"""
LOGGED = "SELECT event_id::text FROM sitelog.event_log WHERE entity_id = $1 ORDER BY log_seq"
SITE_NAME = "SELECT site_name FROM customer_sites WHERE site_id = $1"


@dataclass
class Partition:
    """One partition that a worker reads, and a producer that puts anything into it."""

    rig: Rig
    worker: WorkerProcess
    producer: AIOKafkaProducer
    number: int = 0

    async def put(self, value: bytes | None, key: bytes | None, **record: Any) -> int:
        """Put a record there, and return its offset."""
        answer = await self.producer.send_and_wait(TOPIC, value, key, self.number, **record)
        offset: int = answer.offset
        return offset

    async def append(self, *events: Event) -> None:
        for event in events:
            await self.put(Codec().encode(event), event.entity_id.encode())

    async def goes_on(self) -> None:
        """Append a site of its own, and wait until it is there: whatever came before has been taken."""
        site = created(f"neighbour-{await self.end()}")
        await self.append(site)
        await until("the neighbour", lambda: self.rig.connection.fetchval(SITE_NAME, site.site_id))
        assert self.worker.runs

    async def end(self) -> int:
        """Return the offset that comes next."""
        query = "SELECT coalesce(max(next_offset), 0) FROM sitelog.consumer_position WHERE log_partition = 1"
        end: int = await self.rig.connection.fetchval(query)
        return end

    async def put_aside(self, since: int) -> list[Any]:
        """Return what is put aside from an offset on."""
        rows: list[Any] = await self.rig.connection.fetch(PUT_ASIDE, TOPIC, self.number, since)
        return rows

    async def logged(self, site_id: str) -> list[str]:
        return [event_id for (event_id,) in await self.rig.connection.fetch(LOGGED, site_id)]

    async def stops_only(self, site: SiteCreated, value: bytes | None, key: bytes | None = None) -> Any:
        """Put a bad record between two good ones of its site, and return how it is put aside."""
        key = site.site_id.encode() if key is None else key
        await self.append(site)
        offset = await self.put(value, key, headers=[("trace", b"\x00\xff")])
        later = updated(site.site_id, name="later")
        await self.append(later)
        await self.goes_on()
        bad, *behind = await self.put_aside(offset)
        assert (bad["kafka_offset"], bad["status"]) == (offset, "parked")
        assert (bad["key"], bad["value"], bad["headers"]) == (key, value, '[["trace","AP8="]]')
        assert [(row["entity_id"], row["status"]) for row in behind] == [(site.site_id, "behind")]
        assert await self.logged(site.site_id) == [site.event_id]
        return bad


@pytest.fixture(scope="module")
async def partition(services: Services, kafka: list[str], database_template: str) -> AsyncIterator[Partition]:
    async with open_rig(services, database_template) as rig:
        producer = AIOKafkaProducer(bootstrap_servers=kafka, max_request_size=2 * FIVE_MEGABYTES)
        await producer.start()
        yield Partition(rig, await rig.worker(), producer)
        await producer.stop()


def created(site_id: str, **values: Any) -> SiteCreated:
    return SiteCreated(site_id=site_id, site_data=SiteValues(name="first", **values))


def updated(site_id: str, **values: Any) -> SiteUpdated:
    return SiteUpdated(site_id=site_id, changed_fields=tuple(values), new_values=SiteValues(**values))


def unchecked(event: Event, **values: Any) -> bytes:
    """Encode the event with values that no producer of ours would let through."""
    return Codec().encode(event.model_copy(update=values))


async def test_rule_7_wrong_bytes_stop_one_entity_and_never_the_partition(partition: Partition) -> None:
    bad = await partition.stops_only(created("wrong-bytes"), b'{"site_id": "wrong-bytes"}')

    assert bad["reason"] == "wrong_bytes"
    assert bad["message"] == "expected 00 or c3 01 at the beginning, got 7b 22"


async def test_a_truncated_event(partition: Partition) -> None:
    whole = Codec().encode(updated("truncated", name="never"))

    bad = await partition.stops_only(created("truncated"), whole[:-3])

    assert bad["reason"] == "truncated"
    assert bad["message"].startswith("expected more bytes of site_updated, got ")


async def test_an_unknown_schema(partition: Partition) -> None:
    bad = await partition.stops_only(created("unknown-schema"), b"\xc3\x01" + b"\x2a" * 8 + b"body")

    assert bad["reason"] == "unknown_schema"
    assert bad["message"] == "expected a known schema, got the header c3 01 2a 2a 2a 2a 2a 2a 2a 2a"


async def test_a_schema_id_without_a_registry(partition: Partition) -> None:
    bad = await partition.stops_only(created("schema-id"), b"\x00\x00\x00\x00\x07body")

    assert bad["reason"] == "unknown_schema"
    assert bad["message"] == "schema id 7: expected a configured registry, got none"


async def test_a_tombstone(partition: Partition) -> None:
    bad = await partition.stops_only(created("tombstone"), None)

    assert (bad["reason"], bad["message"]) == ("empty", "expected an Avro value, got none")


async def test_a_missing_id(partition: Partition) -> None:
    bad = await partition.stops_only(created("missing-id"), unchecked(updated("x", name="never"), site_id=""))

    assert bad["reason"] == "invalid_value"
    assert "site_id: expected 1 to 100 characters" in bad["message"]


async def test_a_missing_key(partition: Partition) -> None:
    """Which entity's it is, only the event can say."""
    site = created("missing-key")
    await partition.append(site)
    update = updated(site.site_id, name="never")

    offset = await partition.put(Codec().encode(update), None)
    await partition.goes_on()

    (bad,) = await partition.put_aside(offset)
    assert (bad["entity_id"], bad["reason"]) == (site.site_id, "missing_key")
    assert bad["message"] == "expected the entity's id as the record's key, got no key"


async def test_an_id_of_101_characters(partition: Partition) -> None:
    with pytest.raises(ValidationError, match="at most 100 characters"):
        created("x" * 101)

    offset = await partition.put(unchecked(created("x"), site_id="x" * 101), b"x" * 101)
    await partition.goes_on()

    (bad,) = await partition.put_aside(offset)
    assert bad["reason"] == "invalid_value"
    assert "site_id: expected 1 to 100 characters" in bad["message"]
    assert bad["entity_id"].startswith("x" * 50 + "…")


async def test_a_key_and_an_id_that_differ(partition: Partition) -> None:
    other = Codec().encode(updated("somebody-else", name="never"))

    bad = await partition.stops_only(created("key-differs"), other)

    assert bad["reason"] == "key_differs"
    assert bad["message"] == "expected the event's site_id 'somebody-else' as the record's key, got 'key-differs'"


async def test_an_unknown_changed_field(partition: Partition) -> None:
    value = unchecked(updated("changed-field", name="never"), changed_fields=("nmae",))

    bad = await partition.stops_only(created("changed-field"), value)

    assert bad["reason"] == "invalid_value"
    assert "changed_fields" in bad["message"]
    assert "'nmae'" in bad["message"]


async def test_the_character_nul_in_a_text(partition: Partition) -> None:
    value = unchecked(updated("nul", name="never"), source_system="a\x00b")

    bad = await partition.stops_only(created("nul"), value)

    assert bad["reason"] == "invalid_value"
    assert "source_system" in bad["message"]


async def test_a_value_that_postgres_refuses(partition: Partition) -> None:
    """Whatever our own checks let through: here a rule that somebody added to the table."""
    await partition.rig.connection.execute("ALTER TABLE customer_sites_v1 ADD CHECK (parking_capacity <> 13)")
    value = Codec().encode(updated("refused", parking_capacity=13))

    bad = await partition.stops_only(created("refused"), value)

    assert bad["reason"] == "refused_by_database"
    assert bad["message"].startswith('CheckViolationError: new row for relation "customer_sites_v1" violates check')


async def test_an_event_sent_twice(partition: Partition) -> None:
    site = created("twice")
    again = updated("twice", name="once")
    before = await partition.worker.metric("sitelog_duplicates_total")

    await partition.append(site, again, again)
    await partition.goes_on()
    await partition.append(site)
    await partition.goes_on()

    assert await partition.logged("twice") == [site.event_id, again.event_id]
    assert await partition.worker.metric("sitelog_duplicates_total") == before + 2


async def test_an_update_that_overtakes_its_sites_creation(partition: Partition) -> None:
    site = created("overtaken")
    first, second = updated("overtaken", name="second"), updated("overtaken", name="third")
    offset = await partition.put(Codec().encode(first), b"overtaken")
    await partition.goes_on()
    (waiting,) = await partition.put_aside(offset)
    assert (waiting["status"], waiting["reason"]) == ("waiting", "waiting")
    assert waiting["message"] == "customer_sites has no row overtaken yet: waiting for its creation"
    assert waiting["value"] == Codec().encode(first)

    await partition.append(second, site)
    await partition.goes_on()

    assert await partition.logged("overtaken") == [site.event_id, first.event_id, second.event_id]
    assert await partition.rig.connection.fetchval(SITE_NAME, "overtaken") == "third"
    assert {row["status"] for row in await partition.put_aside(offset)} == {"applied"}


async def test_an_update_that_overtakes_its_sites_creation_by_a_hair(partition: Partition) -> None:
    """All in one batch."""
    site, update = created("hair"), updated("hair", name="second")
    offset = await partition.end()

    batch = partition.producer.create_batch()
    for event in (update, site):
        batch.append(key=b"hair", value=Codec().encode(event), timestamp=None)
    await (await partition.producer.send_batch(batch, TOPIC, partition=partition.number))
    await partition.goes_on()

    assert await partition.logged("hair") == [site.event_id, update.event_id]
    assert await partition.put_aside(offset) == []


async def test_five_megabytes(partition: Partition) -> None:
    site = created("large")
    large = updated("large", name="x" * FIVE_MEGABYTES)
    async with Appender(partition.rig.settings) as appender:
        with pytest.raises(EventTooLarge, match=f"site_updated {large.event_id} of large: expected at most 1048576"):
            await appender.append(large)
    await allow_records_of(partition.rig, 2 * FIVE_MEGABYTES)
    await partition.append(site, large)
    await partition.goes_on()

    assert await partition.logged("large") == [site.event_id, large.event_id]
    assert len(await partition.rig.connection.fetchval(SITE_NAME, "large")) == FIVE_MEGABYTES


async def allow_records_of(rig: Rig, size: int) -> None:
    """Let the broker take what our own topics never would."""
    admin = AIOKafkaAdminClient(**kafka_client_options(rig.settings))
    await admin.start()
    try:
        configs = {"max.message.bytes": str(size)}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC, configs)])
    finally:
        await admin.close()
