"""A whole log without Kafka: events go straight into the transaction, partition by partition, as workers put them."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

from sitelog.projections._database import open_pool
from sitelog.projections._items import EPOCH, Item, decode
from sitelog.projections._log import seen_before
from sitelog.projections._merge import Policy
from sitelog.projections._positions import PostgresPositions
from sitelog.projections._read_models import PROJECTOR
from sitelog.projections._registry import Plan
from sitelog.projections._transaction import Projector, Slice
from sitelog.streams._event import Event
from sitelog.streams.codec import Codec
from sitelog.streams.settings import Settings
from tests.histories import Unreadable
from tests.oracle import Oracle
from tests.partition import Record

BEGIN = datetime(2026, 11, 21, 12, tzinfo=UTC)
Place = tuple[str, int]


class WrittenLog:
    """`records` are all that were appended; `oracle` has been told the same."""

    def __init__(self, pool: Any, settings: Settings, planned: Plan, policy: Policy = "last_write_wins") -> None:
        self.pool = pool
        self.oracle = Oracle(policy)
        self.records: dict[Place, list[Record]] = {}
        self._topics = settings.kafka_config.topics
        self._planned = planned
        self._codec = Codec()
        self._applied: dict[Place, int] = {}
        self.decide(policy)

    def decide(self, policy: Policy) -> None:
        """Decide on conflicts like this from now on."""
        self.oracle.policy = policy
        self._projector = Projector(
            self._planned, self._codec, consumer=PROJECTOR, policy=policy, now=lambda: datetime.now(UTC)
        )

    async def write(self, happened: Iterable[Event | Unreadable], *, sizes: Sequence[int] = ()) -> None:
        """Append, and apply in batches of these sizes; what is left over is one batch more."""
        for one in happened:
            self._append(one)
        for place in sorted(self.records):
            for size in sizes:
                await self.apply(place, size)
            await self.apply(place, len(self.records[place]))

    def _append(self, one: Event | Unreadable) -> None:
        place = one.topic, crc32(one.entity_id.encode()) % self._topics[one.topic].partitions
        records = self.records.setdefault(place, [])
        at = BEGIN + timedelta(seconds=sum(map(len, self.records.values())))
        value = b"{}" if isinstance(one, Unreadable) else self._codec.encode(one)
        milliseconds = (at - EPOCH) // timedelta(milliseconds=1)
        records.append(Record(len(records), milliseconds, one.entity_id.encode(), value))
        if isinstance(one, Unreadable):
            self.oracle.stop(one.entity_id)
        else:
            self.oracle.apply(one, append_time=at)

    async def apply(self, place: Place, size: int) -> None:
        """Apply the next so many records of a partition under a claim of its own."""
        start = self._applied.get(place, 0)
        records = self.records[place][start : start + size]
        if not records:
            return
        end = start + len(records)
        position = await PostgresPositions(self.pool, PROJECTOR, "this test", self._planned.projections).claim(
            *place, 1, force=True
        )
        assert position is not None
        async with self.pool.acquire() as connection:
            try:
                await self._try(connection, Slice(*place, position.epoch, start, end, self._items(place, records)))
            except Exception as error:
                if not seen_before(error):
                    raise
                part = Slice(*place, position.epoch, start, end, self._items(place, records))
                await self._try(connection, part, check_known=True)
        self._applied[place] = end

    def _items(self, place: Place, records: Sequence[Record]) -> list[Item]:
        return decode(records, place[0], self._codec)

    async def _try(self, connection: Any, part: Slice, *, check_known: bool = False) -> None:
        outcome = await self._projector.apply(connection, part, check_known=check_known)
        assert outcome.verdict == "applied"
        again = await self._projector.apply(connection, part, check_known=check_known)
        assert again.verdict == "applied_before"


@asynccontextmanager
async def open_log(settings: Settings, planned: Plan, policy: Policy = "last_write_wins") -> AsyncIterator[WrittenLog]:
    """An empty log in the database of `settings`, written with the application's rights."""
    async with await open_pool(settings.database_config.primary) as pool:
        yield WrittenLog(pool, settings, planned, policy)
