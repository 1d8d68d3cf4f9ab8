"""Folds the topics themselves: every record from offset 0, taken as the worker took it, held against the log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from sitelog.agents._refold import Moved, Span, counting_on
from sitelog.projections import _conflicts
from sitelog.projections._intake import Aside, Intake, Taken
from sitelog.projections._items import Item, decode
from sitelog.projections._parked import Status
from sitelog.projections._read_models import PROJECTOR
from sitelog.projections._rebuild import FreshRows
from sitelog.projections._registry import Plan
from sitelog.streams._event import Event
from sitelog.streams._kafka import kafka_client_options, start_client
from sitelog.streams.codec import Codec
from sitelog.streams.errors import Halt, Park, UnavailableError
from sitelog.streams.settings import Settings

READ_SECONDS_MAX: Final = 15.0
"""For the next records of a partition that has some."""

LOGGED: Final = """
SELECT event_id::text, log_partition, log_seq, kafka_offset FROM sitelog.event_log WHERE event_id = ANY($1::uuid[])
"""

# What Postgres refused, no fold can know: values, and rows whose entity is at home in another partition.
REFUSED: Final = """
SELECT kafka_offset, reason, message
FROM sitelog.parked_event
WHERE consumer = $1 AND log_partition = $2 AND reason IN ('refused_by_database', 'wrong_partition')
"""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The records before `next_offset` of one partition, and the span of the log that they came to."""

    span: Span
    next_offset: int


@dataclass(slots=True)
class Lane:
    """What is put aside in one partition, as the worker had it."""

    refused: dict[int, Park]
    stopped: dict[str, Status] = field(default_factory=dict)
    waiting: dict[str, list[Item]] = field(default_factory=dict)


class TopicFold:
    """Reads with a consumer of its own, outside any group; `connection` writes the fresh tables."""

    def __init__(self, connection: Any, settings: Settings, planned: Plan, codec: Codec) -> None:
        self._connection = connection
        self._settings = settings
        self._planned = planned
        self._codec = codec

    async def run(self, stretches: Sequence[Stretch], moved: Moved) -> None:
        """Fold the stretches, and tell `moved` how many events that makes.

        Raises Halt where a topic doesn't have all of its records any more, and where what comes out isn't what the
        log has; UnavailableError where Kafka doesn't answer.
        """
        consumer = AIOKafkaConsumer(
            **kafka_client_options(self._settings),
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=self._settings.worker.batch_bytes_max,
        )
        try:
            await start_client(consumer, self._settings)
            await refuse_missing(consumer, stretches)
            done = 0
            for stretch in stretches:
                await self._fold(consumer, stretch, counting_on(moved, done))
                done += stretch.span.events
        except KafkaError as error:
            raise UnavailableError(f"Kafka didn't answer as expected: {error!r}. Try again") from error
        finally:
            await consumer.stop()

    async def _fold(self, consumer: Any, stretch: Stretch, moved: Moved) -> None:
        span = stretch.span
        rows_max = self._settings.replay.rows_in_memory_max
        rows = FreshRows(self._connection, self._planned, span.part.number, rows_max=rows_max, started=False)
        refused = await self._connection.fetch(REFUSED, PROJECTOR, span.part.number)
        lane = Lane({row["kafka_offset"]: Park(row["reason"], row["message"]) for row in refused})
        place = TopicPartition(span.part.topic, span.part.partition)
        consumer.assign([place])
        consumer.seek(place, 0)
        offset = log_seq = 0
        while offset < stretch.next_offset:
            records = await self._read(consumer, place, offset, stretch.next_offset)
            offset = records[-1].offset + 1
            await self._codec.prepare([record.value for record in records])
            log_seq = await self._take(rows, lane, stretch, log_seq, decode(records, span.part.topic, self._codec))
            await rows.spill()
            moved(log_seq)
        if log_seq != span.until:
            raise Halt(
                f"{span.part.topic}[{span.part.partition}]: expected the {span.until} events that the log has, the "
                f"topic's first {stretch.next_offset} records come to {log_seq}: {_ADVICE}"
            )
        await rows.flush()

    async def _read(self, consumer: Any, place: TopicPartition, offset: int, end: int) -> list[Any]:
        """Return the next records, at least one. Raises Halt where one is missing."""
        settings = self._settings
        fetched = await consumer.getmany(
            place, timeout_ms=READ_SECONDS_MAX * 1_000, max_records=settings.replay.batch_records_max
        )
        records = [record for record in fetched.get(place, ()) if record.offset < end]
        if not records:
            raise UnavailableError(f"{place.topic}[{place.partition}]: no record after {READ_SECONDS_MAX:.0f} s")
        for expected, record in enumerate(records, offset):
            if record.offset != expected:
                raise Halt(f"{place.topic}[{place.partition}]: expected offset {expected}, found {record.offset}")
        return records

    async def _take(self, rows: FreshRows, lane: Lane, stretch: Stretch, log_seq: int, items: list[Item]) -> int:
        """Take records as the worker took them, and return the log seq that they come to."""
        number = stretch.span.part.number
        items = await self._first_ones(number, items)
        for item in items:
            if item.event is not None and item.offset in lane.refused:
                item.event, item.problem = None, lane.refused[item.offset]
        await rows.load(_events(items, lane.waiting))
        until = log_seq + len(items) + sum(map(len, lane.waiting.values()))
        rows.fold.decided = await _conflicts.decided(self._connection, number, log_seq, until)
        now = datetime.now(UTC)
        intake = Intake(rows.fold, number, log_seq, now, aside=Aside(lane.stopped, lane.waiting))
        intake.take_all(items)
        await self._hold_against_log(stretch, intake.taken)
        return intake.log_seq

    async def _first_ones(self, number: int, items: list[Item]) -> list[Item]:
        """Leave out the records whose event the log has from another record: they were sent twice."""
        ids = [item.event.event_id for item in items if item.event is not None]
        logged = {row[0]: (row[1], row[3]) for row in await self._connection.fetch(LOGGED, ids)}
        return [
            item
            for item in items
            if item.event is None or logged.get(item.event.event_id, (number, item.offset)) == (number, item.offset)
        ]

    async def _hold_against_log(self, stretch: Stretch, taken: Taken) -> None:
        """Raise Halt unless the log has each event at the place where it came out here."""
        part = stretch.span.part
        events = [(log_seq, item, item.event) for log_seq, item in taken.log if item.event is not None]
        rows = await self._connection.fetch(LOGGED, [event.event_id for _, _, event in events])
        logged = {row[0]: (row[1], row[2]) for row in rows}
        for log_seq, item, event in events:
            if logged.get(event.event_id) != (part.number, log_seq):
                raise Halt(
                    f"{part.topic}[{part.partition}] offset {item.offset}, {event.event_type} {event.event_id}: "
                    f"expected log seq {log_seq}, the log has {logged.get(event.event_id, (0, 'none'))[1]}: {_ADVICE}"
                )


def _events(items: Sequence[Item], waiting: Mapping[str, Sequence[Item]]) -> list[Event]:
    """Return the events of records and of what waits for their entities, each once however many records one has."""
    queued = [item for entity in {item.entity_id for item in items} for item in waiting.get(entity, ())]
    return [item.event for item in (*items, *queued) if item.event is not None]


_ADVICE: Final = (
    "the topic can't say what people decided on parked events or positions. Replay the log: without --from-topic. "
    "Nothing was switched"
)


async def refuse_missing(consumer: Any, stretches: Sequence[Stretch]) -> None:
    """Raise Halt unless the topics have every record from offset 0 up to where the stretches end."""
    places = {TopicPartition(s.span.part.topic, s.span.part.partition): s.next_offset for s in stretches}
    first, end = await consumer.beginning_offsets(list(places)), await consumer.end_offsets(list(places))
    problems = [
        f"{place.topic}[{place.partition}] begins at offset {first[place]}: its first {first[place]} records are gone"
        for place in places
        if first[place] > 0
    ] + [
        f"{place.topic}[{place.partition}] ends at offset {end[place]}, the worker's position is {next_offset}"
        for place, next_offset in places.items()
        if end[place] < next_offset
    ]
    if problems:
        raise Halt(f"{'; '.join(problems)}. Replay the log, which has them all: without --from-topic")
