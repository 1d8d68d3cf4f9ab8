"""One partition without Kafka: its records go straight into the transaction, as a worker's pipeline puts them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import uuid4

from sitelog.projections._database import connect
from sitelog.projections._items import decode
from sitelog.projections._log import seen_before
from sitelog.projections._parked import Limits
from sitelog.projections._positions import PostgresPositions
from sitelog.projections._read_models import names
from sitelog.projections._registry import load, plan
from sitelog.projections._slice import Outcome, Slice
from sitelog.projections._transaction import Projector
from sitelog.projections._unpark import Discard, Moved, Unpark
from sitelog.streams._event import Event
from sitelog.streams.codec import Codec
from sitelog.streams.examples import example
from sitelog.streams.settings import Settings
from tests.registries import FilledRegistry

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
NOON_MS = int(NOON.timestamp() * 1000)

POSITION = """
SELECT next_offset, log_seq, epoch, anchor, parked_entities
FROM sitelog.consumer_position JOIN sitelog.log_partition USING (log_partition)
WHERE topic = $1 AND partition = $2
"""

LOG = """
SELECT l.log_seq, l.kafka_offset, l.entity_id, l.event_id::text
FROM sitelog.event_log AS l JOIN sitelog.log_partition USING (log_partition)
WHERE topic = $1 AND partition = $2 ORDER BY log_seq
"""

PARKED = "SELECT kafka_offset, status, reason, message FROM sitelog.parked_event ORDER BY kafka_offset"


class Record(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Position(NamedTuple):
    next_offset: int
    log_seq: int
    epoch: int
    anchor: int | None
    parked_entities: int


class Pool:
    """The one connection, as PostgresPositions wants it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        yield self._connection


def event(kind: str, site_id: str = "site-1", **values: Any) -> Event:
    """An example of this type that nobody has appended before."""
    return example(kind, event_id=str(uuid4()), site_id=site_id, **values)


def renamed(site_id: str = "site-1", name: str = "Another Name") -> Event:
    """A new name for a site."""
    return event("site_updated", site_id, changed_fields=["name"], old_values=None, new_values={"name": name})


class Partition:
    """`codec` knows what `registry` has been given; `records` are all that were fed, by offset."""

    topic = "customer-sites-events"

    def __init__(self, connection: Any, number: int = 0) -> None:
        self.connection = connection
        self.number = number
        self.registry = FilledRegistry()
        self.codec = Codec(self.registry)
        self.records: list[Record] = []
        self.take_aside(Limits(16_000, 2_621_440))

    def take_aside(self, limits: Limits) -> None:
        """Take so much at once of what was put aside, from now on."""
        self.projector = Projector(
            plan(load()),
            self.codec,
            consumer="projector",
            policy="last_write_wins",
            limits=limits,
            now=lambda: datetime.now(UTC),
        )
        self.unpark = Unpark(self.projector, self.codec, "projector", names(load()))

    async def claim(self) -> int:
        """Take the partition as a worker does, and return the epoch."""
        positions = PostgresPositions(Pool(self.connection), "projector", "this test", load())
        position = await positions.claim(self.topic, self.number, 1, force=True)
        assert position is not None
        return position.epoch

    async def feed(self, *records: Event | tuple[str, bytes | None]) -> Outcome:
        """Append events, or values under a key, and apply them in one batch."""
        return await self.apply(self.append(*records))

    def append(self, *records: Event | tuple[str, bytes | None]) -> int:
        """Append events, or values under a key, and return the first one's offset."""
        start = len(self.records)
        for one in records:
            key, value = one if isinstance(one, tuple) else (one.entity_id, self.codec.encode(one))
            self.records.append(Record(len(self.records), NOON_MS + len(self.records), key.encode(), value))
        return start

    async def apply(self, start: int, end: int | None = None) -> Outcome:
        """Apply the records from this offset on, under a claim of its own."""
        part = await self.claimed(start, end)
        try:
            (outcome,) = await self.projector.apply(self.connection, [part])
        except Exception as error:
            if not seen_before(error):
                raise
            part = replace(part, items=decode(self.records[start:end], self.topic, self.codec))
            (outcome,) = await self.projector.apply(self.connection, [part], check_known=True)
        return outcome

    async def claimed(self, start: int, end: int | None = None) -> Slice:
        """Return the records from this offset on, to be applied under a claim of their own."""
        epoch = await self.claim()
        await self.codec.prepare([record.value for record in self.records[start:end]])
        return self.part(start, epoch, end)

    def part(self, start: int, epoch: int, end: int | None = None) -> Slice:
        """Return the records from this offset on, to be applied under the claim of this epoch."""
        records = self.records[start:end]
        items = decode(records, self.topic, self.codec)
        return Slice(self.topic, self.number, epoch, start, start + len(records), items)

    async def retry(self, entity_id: str) -> Moved:
        """Retry an entity that is stopped in this partition only."""
        (stopped,) = [one async for one in self.unpark.stopped(self.connection, entity_id)]
        return await self.unpark.retry(self.connection, stopped)

    async def discard(self, parked_id: int) -> Moved | None:
        return await self.unpark.discard(self.connection, Discard(parked_id, NOON, "an operator", "it is no event"))

    async def position(self) -> Position:
        return Position(*await self.connection.fetchrow(POSITION, self.topic, self.number))

    async def log(self) -> list[tuple[int, int, str, str]]:
        """Log seq, Kafka offset, entity and event id of all that was applied, in this order."""
        return [tuple(row) for row in await self.connection.fetch(LOG, self.topic, self.number)]

    async def parked(self) -> list[tuple[int, str, str]]:
        """Offset, status and reason of all that was ever put aside."""
        return [tuple(row)[:3] for row in await self.connection.fetch(PARKED)]

    async def version(self, site_id: str) -> int | None:
        """How many events the site's row has seen."""
        version: int | None = await self.connection.fetchval(
            "SELECT version FROM customer_sites WHERE site_id = $1", site_id
        )
        return version


@asynccontextmanager
async def open_partition(settings: Settings) -> AsyncIterator[Partition]:
    """A partition in the database of `settings`, used with the application's rights."""
    connection = await connect(settings.database_config.primary)
    try:
        yield Partition(connection)
    finally:
        await connection.close()
