"""A whole log without Kafka: events go straight into the transaction, partition by partition, as workers put them."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

from sitelog.projections._database import open_pool
from sitelog.projections._items import EPOCH, decode
from sitelog.projections._log import seen_before
from sitelog.projections._merge import Policy
from sitelog.projections._parked import Limits
from sitelog.projections._positions import PostgresPositions
from sitelog.projections._read_models import PROJECTOR
from sitelog.projections._registry import Plan
from sitelog.projections._slice import Slice
from sitelog.projections._transaction import Projector
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
        self._epochs: dict[Place, int] = {}
        self.shared = 0  # transactions with more than one partition in them
        self.decide(policy)

    def decide(self, policy: Policy) -> None:
        """Decide on conflicts like this from now on."""
        self.oracle.policy = policy
        self._projector = Projector(
            self._planned,
            self._codec,
            consumer=PROJECTOR,
            policy=policy,
            limits=Limits(16_000, 2_621_440),
            now=lambda: datetime.now(UTC),
        )

    async def write(
        self, happened: Iterable[Event | Unreadable], *, sizes: Sequence[int] = (), shared: bool = False
    ) -> None:
        """Append, and apply in batches of these sizes; what is left over is one batch more.

        `shared`: one batch of each partition in one transaction, or else partition by partition.
        """
        for one in happened:
            self._append(one)
        places = sorted(self.records)
        for together in [places] if shared else [[place] for place in places]:
            for size in sizes:
                await self.apply(together, size)
            await self.apply(together, max(len(self.records[place]) for place in together))

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

    async def apply(self, places: Sequence[Place], size: int) -> None:
        """Apply the next so many records of each partition."""
        behind = [place for place in places if self._applied.get(place, 0) < len(self.records[place])]
        parts = [await self._next(place, size) for place in behind]
        async with self.pool.acquire() as connection:
            if not await self._try(connection, parts):
                for part in parts:  # as a worker does
                    assert await self._try(connection, [part]) or await self._try(connection, [part], check_known=True)
        self._applied |= {(part.topic, part.partition): part.end for part in parts}

    async def _next(self, place: Place, size: int) -> Slice:
        start = self._applied.get(place, 0)
        records = self.records[place][start : start + size]
        if place not in self._epochs:
            self._epochs[place] = await self._claim(place)
        items = decode(records, place[0], self._codec)
        return Slice(*place, self._epochs[place], start, start + len(records), items)

    async def _claim(self, place: Place) -> int:
        positions = PostgresPositions(self.pool, PROJECTOR, "this test", self._planned.projections)
        position = await positions.claim(*place, 1, force=True)
        assert position is not None
        return position.epoch

    async def _try(self, connection: Any, parts: Sequence[Slice], *, check_known: bool = False) -> bool:
        """Apply, and once more; False where an event is known already."""
        if not parts:
            return True
        try:
            outcomes = await self._projector.apply(connection, parts, check_known=check_known)
        except Exception as error:
            if not seen_before(error):
                raise
            return False
        assert {outcome.verdict for outcome in outcomes} == {"applied"}
        again = await self._projector.apply(connection, parts, check_known=check_known)
        assert {outcome.verdict for outcome in again} == {"applied_before"}
        self.shared += len(parts) > 1
        return True


@asynccontextmanager
async def open_log(settings: Settings, planned: Plan, policy: Policy = "last_write_wins") -> AsyncIterator[WrittenLog]:
    """An empty log in the database of `settings`, written with the application's rights."""
    async with await open_pool(settings.database_config.primary) as pool:
        yield WrittenLog(pool, settings, planned, policy)
