"""aiokafka's producer, made to survive: it names a missing topic, replaces a dead sender and ends in time."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError, ProducerClosed
from aiokafka.structs import RecordMetadata, TopicPartition

from sitelog.streams._kafka import kafka_client_options, start_client
from sitelog.streams.errors import Halt, UnavailableError, reason_of
from sitelog.streams.settings import ProducerSettings
from sitelog.streams.topics import EXIT_TOPICS

TOPIC_SECONDS_MAX: Final = 5
"""Until a topic that was created just now is known to every broker."""
STOP_SECONDS_MAX: Final = 5
"""For closing connections, once nothing is waited for any more."""

NOT_OPEN: Final = "expected an Appender that is open, got one outside of its `async with`: append within it"

_TOPIC_POLL_SECONDS: Final = 0.1
_SENDER_SECONDS: Final = 0.5
_UNCOMPRESSED: Final = {"uncompressed", "producer"}

log = logging.getLogger(__name__)


class Producer:
    """An idempotent producer of one compression: what it was given is in the topic once, and in its order."""

    def __init__(self, settings: ProducerSettings, compression: str) -> None:
        """Take the name of a compression as topics are configured with it."""
        self._settings = settings
        self._compression = None if compression in _UNCOMPRESSED else compression
        self._producer: Any = None
        self._topics: set[str] = set()
        self._gates: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._replacing = asyncio.Lock()
        self._ended = False

    async def start(self) -> None:
        """Connect; raises what `start_client` raises."""
        append = self._settings.append
        producer = AIOKafkaProducer(
            **kafka_client_options(self._settings),
            acks="all",
            enable_idempotence=True,
            compression_type=self._compression,
            linger_ms=append.linger_ms,
            max_batch_size=append.batch_bytes,
            max_request_size=append.message_bytes_max,
            # Also how long a batch may be without a leader; one that expires so breaks the idempotent sequence.
            request_timeout_ms=int(append.delivery_timeout_seconds * 1_000),
        )
        try:
            await start_client(producer, self._settings)
            self._raise_if_ended()
        except BaseException:
            await _close_now(producer)
            raise
        _retire_when_refused(producer)
        # Not before: who shares this one would ask after a sender that isn't there yet.
        self._producer = producer

    async def send(
        self,
        topic: str,
        key: bytes,
        value: bytes,
        headers: Sequence[tuple[str, bytes]] | None = None,
        *,
        before: Callable[[], None] = lambda: None,
    ) -> "asyncio.Future[RecordMetadata]":
        """Take a record, and return the future of its acknowledgement.

        Waits while the partition's buffer is full, as long as the caller lets it. Raises Halt for a topic that isn't
        there, RuntimeError after `stop` or `abandon`, and aiokafka's errors. `before` is called when nothing is waited
        for any more, and may raise: what was sent before has failed by then if its producer has.
        """
        async with self._gates[topic]:  # also who needn't ask any more: not before those who wait
            if topic not in self._topics:
                await self._require(topic)
        while True:
            producer = await self._living()
            before()
            try:
                future: asyncio.Future[RecordMetadata] = await producer.send(topic, value, key, headers=headers)
            except (KafkaTimeoutError, ProducerClosed):
                # The buffer stayed full, or the producer was retired meanwhile: this record wasn't taken, so that
                # taking it again keeps the order.
                continue
            return future

    async def stop(self) -> None:
        """Wait until all that was sent is acknowledged or has failed, and close the connections."""
        self._ended = True
        if self._producer is not None:
            await self._producer.stop()

    async def abandon(self) -> None:
        """Close the connections now; what isn't acknowledged yet fails, and may be in the topic or not."""
        self._ended = True
        await self._drop()

    async def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await _close_now(producer)

    async def _living(self) -> Any:
        """Return a producer that takes records, another one if the last has failed."""
        self._raise_if_ended()
        while self._is_dead():
            await self._replace()
        return self._producer

    def _raise_if_ended(self) -> None:
        if self._ended:
            raise RuntimeError(NOT_OPEN)

    async def _replace(self) -> None:
        async with self._replacing:
            if self._is_dead():  # still: another task may have been here first
                self._raise_if_ended()
                log.warning("the Kafka producer failed, and is replaced")
                await self._settle()
                await self._drop()
                await self.start()

    async def _settle(self) -> None:
        """Let a retired producer end what it has for other partitions."""
        if self._producer is not None and not _has_ended(self._producer):
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS_MAX):
                    await self._producer.flush()

    def _is_dead(self) -> bool:
        """Tell whether every further send would fail, as after a gap in the idempotent sequence."""
        producer = self._producer
        return producer is None or _has_ended(producer) or producer._message_accumulator._closed  # noqa: SLF001

    async def _require(self, topic: str) -> None:
        """Raise Halt for a topic that isn't there; aiokafka would wait for it, and some brokers create it."""
        until = monotonic() + TOPIC_SECONDS_MAX
        while True:
            try:
                metadata = await (await self._living()).client.fetch_all_metadata()
            except KafkaError as error:
                raise UnavailableError(f"Kafka didn't answer as expected: {error}. Try again") from error
            if topic in metadata.topics():
                # So that nobody's first send waits for what another one's needn't any more.
                await (await self._living()).partitions_for(topic)
                self._topics.add(topic)
                return
            if monotonic() > until:
                raise Halt(
                    f"expected the topic {topic}, got none of that name that this user may see: "
                    "`sitelog topics create` creates it",
                    EXIT_TOPICS,
                )
            await asyncio.sleep(_TOPIC_POLL_SECONDS)


def _retire_when_refused(producer: Any) -> None:
    """Let it take no record any more once Kafka has refused a batch: every later one of that partition is refused too.

    aiokafka has counted the batch in the idempotent sequence by then. It tells only who waits for an event that was in
    the batch, which may be nobody any more.
    """
    accumulator = producer._message_accumulator  # noqa: SLF001
    append_batch = accumulator._append_batch  # noqa: SLF001

    def watched(builder: Any, partition: TopicPartition) -> Any:
        batch = append_batch(builder, partition)
        batch.future.add_done_callback(partial(_retire, accumulator, partition))
        return batch

    accumulator._append_batch = watched  # noqa: SLF001


def _retire(accumulator: Any, partition: TopicPartition, sent: "asyncio.Future[RecordMetadata]") -> None:
    if sent.exception() is None:
        return
    accumulator._closed = True  # noqa: SLF001
    # A broker that knows nothing of this producer yet would take what waits behind: in the log before what was refused.
    for batch in accumulator._batches.pop(partition, ()):  # noqa: SLF001
        batch.drain_ready()  # who waits for room in it goes to the next producer
        batch.failure(ProducerClosed())


def _has_ended(producer: Any) -> bool:
    # aiokafka has no other word for it.
    return bool(producer._sender.sender_task.done())  # noqa: SLF001


async def _close_now(producer: Any) -> None:
    """Close it also where the caller is cancelled meanwhile: nobody else knows it any more."""
    producer._message_accumulator.fail_all(ProducerClosed())  # noqa: SLF001 - stop() would wait for all of it
    closing = asyncio.ensure_future(_close(producer))
    try:
        await asyncio.shield(closing)
    except asyncio.CancelledError:
        await asyncio.wait([closing])
        raise


async def _close(producer: Any) -> None:
    try:
        async with asyncio.timeout(STOP_SECONDS_MAX):
            # Connections first: requests under way end with them.
            await producer.client.close()
            await producer.stop()
            await _end_sender(producer)
    except (KafkaError, OSError, TimeoutError) as error:
        log.warning("the Kafka producer didn't close cleanly: %s", reason_of(error))
    finally:
        await producer.client.close()  # what was connected meanwhile


async def _end_sender(producer: Any) -> None:
    """End what sends: stop() does nothing where an earlier one was cut off."""
    task = producer._sender.sender_task  # noqa: SLF001 - its close() raises what the sender makes of a failed batch
    while task is not None and not task.done():
        # Once it waits for requests under way, one that connects for instance; twice it doesn't.
        task.cancel()
        await asyncio.wait([task], timeout=_SENDER_SECONDS)
