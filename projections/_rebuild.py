"""Folds one log partition again, from its first event on, into tables that nobody reads yet."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from sitelog.projections import _conflicts, _log
from sitelog.projections._fold import Fold
from sitelog.projections._log import Logged
from sitelog.projections._projection import NEXT
from sitelog.projections._registry import Plan
from sitelog.projections._stored import At
from sitelog.projections._tables import Tables
from sitelog.streams._event import Event
from sitelog.streams.codec import Codec, Undecodable
from sitelog.streams.errors import Halt, Park
from sitelog.streams.settings import ReplaySettings

SCHEMAS: Final = "SELECT schema::text FROM sitelog.avro_schema"


@dataclass(frozen=True, slots=True)
class LogPartition:
    """A partition of a topic, and the number that stands for it in the log."""

    number: int
    topic: str
    partition: int


class FreshRows:
    """The fresh tables' rows of one log partition. At most so many as the settings say are in memory.

    They are written and forgotten when they become too many, and at the end: `flush`. `started` tells that the
    tables have rows of this partition already. Nothing is promised of rows in memory after an error.
    """

    def __init__(self, connection: Any, plan: Plan, log_partition: int, *, rows_max: int, started: bool) -> None:
        self.connection = connection
        self._plan = plan
        self._tables = Tables(plan, NEXT)
        self._log_partition = log_partition
        self._rows_max = rows_max
        self._started = started
        self.fold = self._empty()

    def _empty(self) -> Fold:
        # What was decided on a conflict is on record; this policy decides where it isn't.
        return Fold(self._plan, "last_write_wins")

    async def load(self, events: Iterable[Event]) -> None:
        """Fetch the rows that the events may touch, unless it is known that there are none."""
        if self._started:
            await self._tables.load(self.connection, [(self.fold, events)])

    async def spill(self) -> None:
        """Write and forget all rows if they are too many."""
        rows = sum(map(len, self.fold.rows.values()))
        histories = sum(len(one.rows) or 1 for entities in self.fold.ranges.values() for one in entities.values())
        if rows + histories > self._rows_max:
            await self.flush()

    async def flush(self) -> None:
        """Write and forget all rows."""
        async with self.connection.transaction():
            write = self._tables.write if self._started else self._tables.fill
            await write(self.connection, [(self._log_partition, self.fold)])
        self.fold = self._empty()
        self._started = True


class LogFold:
    """Folds what the log has. `codec` must know the schemas that the log was written with, see `learn`."""

    def __init__(self, codec: Codec, settings: ReplaySettings) -> None:
        self._codec = codec
        self._settings = settings

    async def run(
        self, rows: FreshRows, part: LogPartition, after: int, until: int, moved: Callable[[int], None]
    ) -> None:
        """Fold the events after the log seq `after` and up to `until`, and tell `moved` how far it has come.

        Rows in memory stay there. Raises Halt where the log has a hole, and naming the event that can't be folded.
        """
        settings = self._settings
        while after < until:
            batch = await _log.read(
                rows.connection,
                part.number,
                after,
                until,
                records_max=settings.batch_records_max,
                bytes_max=settings.batch_bytes_max,
            )
            await self._fold(rows, part, batch)
            after = batch[-1].log_seq
            moved(after)
            await rows.spill()

    async def _fold(self, rows: FreshRows, part: LogPartition, batch: list[Logged]) -> None:
        first, last = batch[0].log_seq, batch[-1].log_seq
        events = [self._decode(logged, part) for logged in batch]
        fold = rows.fold
        fold.decided = await _conflicts.decided(rows.connection, part.number, first - 1, last)
        await rows.load(events)
        for logged, event in zip(batch, events, strict=True):
            try:
                fold.apply(event, At(logged.log_seq, logged.append_time))
            except Park as park:
                raise _halt(logged, part, f"{event.event_type} of {event.entity_id}", park) from park

    def _decode(self, logged: Logged, part: LogPartition) -> Event:
        try:
            return self._codec.decode_body(logged.schema_fingerprint, logged.payload)
        except Park as park:
            raise _halt(logged, part, f"schema {logged.schema_fingerprint}", park) from park


def _halt(logged: Logged, part: LogPartition, what: str, park: Park) -> Halt:
    return Halt(
        f"{part.topic}[{part.partition}] log seq {logged.log_seq} (offset {logged.kafka_offset}), {what}: "
        f"the log has it, but it can't be folded: {park}. Nothing was switched"
    )


async def learn(connection: Any, codec: Codec) -> None:
    """Let the codec read what the log was written with; no registry is asked.

    A schema that is of none of today's events is passed over: it matters only if the log has such an event.
    """
    for row in await connection.fetch(SCHEMAS):
        with suppress(Undecodable):
            codec.learn(row[0])
