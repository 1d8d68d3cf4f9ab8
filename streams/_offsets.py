"""Looks into topics from outside any consumer group: which offsets there are, and when a record was appended."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Final, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from sitelog.streams._kafka import kafka_client_options, start_client
from sitelog.streams.errors import UnavailableError, reason_of
from sitelog.streams.settings import Settings

_REQUEST_SECONDS: Final = 15
"""For one request: a healthy broker answers in milliseconds, one that is just elected leader in seconds."""
_READ_SECONDS: Final = 3.0
"""For the records: who doesn't get one goes without."""
_STOP_SECONDS: Final = 1.0
_FETCH_BYTES: Final = 65_536
"""Of one partition: one record is wanted, and Kafka sends its batch whole however little is asked for."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Place(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class Spot(NamedTuple):
    """One record of a topic, by its offset."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """A partition's first offset and the one after its last."""

    first: int
    end: int


class Offsets:
    """A connection to Kafka that only looks: `async with Offsets(settings) as offsets`."""

    def __init__(self, settings: Settings) -> None:
        """Take the settings; nothing is connected before `async with`."""
        self._settings = settings
        self._consumer = AIOKafkaConsumer(
            **kafka_client_options(settings),
            enable_auto_commit=False,
            auto_offset_reset="none",
            request_timeout_ms=_REQUEST_SECONDS * 1_000,
            max_partition_fetch_bytes=_FETCH_BYTES,
        )

    async def __aenter__(self) -> Self:
        """Connect. Raises UnavailableError and ConfigError as `start_client`."""
        try:
            await start_client(self._consumer, self._settings)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await self._stop()

    async def _stop(self) -> None:
        # aiokafka's fetcher can miss that it is cancelled while it lets go of an assignment; it doesn't miss it twice.
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await self._consumer.stop()

    async def bounds(self, places: Collection[Place]) -> dict[Place, Bounds | None]:
        """Return the bounds of those partitions that exist, as the brokers say them now: None where one has no leader.

        Raises UnavailableError where Kafka doesn't answer.
        """
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                # Asking for a topic by name would create it where brokers do that on demand.
                cluster = await self._consumer._client.fetch_all_metadata()  # noqa: SLF001
                there = [
                    place for place in places if place.partition in (cluster.partitions_for_topic(place.topic) or ())
                ]
                # To ask for one without a leader is to wait for its election, as long as that takes.
                led = [
                    TopicPartition(*place)
                    for place in there
                    if place.partition in cluster.available_partitions_for_topic(place.topic)
                ]
                first = await self._consumer.beginning_offsets(led)
                end = await self._consumer.end_offsets(led)
        except (KafkaError, OSError, TimeoutError) as error:
            servers = ", ".join(self._settings.kafka_config.bootstrap_servers)
            raise UnavailableError(
                f"Kafka at {servers} didn't say how far its topics reach: {reason_of(error)}. Try again"
            ) from error
        return dict.fromkeys(there) | {Place(*one): Bounds(first[one], end[one]) for one in led}

    async def append_times(self, spots: Collection[Spot]) -> dict[Spot, datetime]:
        """Return when these records were appended, or the first ones after them.

        Those are left out that aren't read in 3 s, or whose time is none of the years 1 to 9999.
        """
        found: dict[Spot, datetime] = {}
        left = set(spots)
        try:
            async with asyncio.timeout(_READ_SECONDS):
                while left:
                    # A consumer has one position in a partition: of two offsets there, one comes first.
                    turn = {TopicPartition(spot.topic, spot.partition): spot for spot in left}
                    left -= set(turn.values())
                    await self._read(turn, found)
        except (KafkaError, OSError, TimeoutError):
            pass  # the caller has to do without
        return found

    async def _read(self, turn: dict[TopicPartition, Spot], found: dict[Spot, datetime]) -> None:
        self._consumer.assign(list(turn))
        for partition, spot in turn.items():
            self._consumer.seek(partition, spot.offset)
        missing = set(turn)
        while missing:
            for partition, records in (await self._consumer.getmany(*missing, timeout_ms=500)).items():
                with suppress(OverflowError):  # a producer may send any number
                    found[turn[partition]] = _EPOCH + timedelta(milliseconds=records[0].timestamp)
                missing.discard(partition)
