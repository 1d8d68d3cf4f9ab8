"""The producers' way into the log: `async with Appender(settings) as appender: await appender.append(event)`."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, nullcontext
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, Self

from aiokafka.errors import KafkaError, MessageSizeTooLargeError, TopicAuthorizationFailedError
from aiokafka.structs import RecordMetadata

from sitelog.streams._event import Event
from sitelog.streams._flight import Flight, MissingError
from sitelog.streams._producer import NOT_OPEN, Producer
from sitelog.streams._tracing import open_telemetry
from sitelog.streams.codec import Codec
from sitelog.streams.errors import ConfigError, Halt, Retry, SitelogError, UnavailableError
from sitelog.streams.registry import SchemaRegistry
from sitelog.streams.settings import ProducerSettings

if TYPE_CHECKING:
    from sitelog.streams._append_spans import AppendSpans

SERVICE: Final = "sitelog-append"
"""What traces call a producer, unless OTEL_SERVICE_NAME says otherwise."""

_YIELD_EVERY: Final = 100
"""Events between two turns of the event loop: aiokafka takes records without ever waiting, as long as it has room."""

_OF_THE_EVENT: Final = (MessageSizeTooLargeError, TopicAuthorizationFailedError)
"""What Kafka says of one event; every other refusal concerns what was sent before it too."""


class EventTooLarge(SitelogError):  # noqa: N818 - it reads as the sentence it is
    """The event has more bytes than a Kafka record may have.

    From `append_many`, `position` events were given before it, and all of those are in the log.
    """

    def __init__(self, message: str, position: int = 0) -> None:
        """Take the event's place among those that were given, the first being 0."""
        super().__init__(message)
        self.position = position


class NotAcknowledged(Retry):
    """Kafka didn't say in time that it has the event: it may be in the log or not.

    Append the same event again, with its `event_id`: the log has each id once. From `append_many` it is the oldest
    event without an acknowledgement, `position` events were given before it, and all of those are in the log.
    """

    def __init__(self, message: str, position: int = 0) -> None:
        """Take the event's place among those that were given, the first being 0."""
        super().__init__(message)
        self.position = position


class Appended(NamedTuple):
    """Where Kafka put an event."""

    topic: str
    partition: int
    offset: int


class Appender:
    """Appends events to their topics.

    Events of one entity keep the order in which they were given, each is in the topic once however often a broker
    fails meanwhile, and one that was acknowledged is on every replica in sync. Keep one open for as long as the process
    appends; any number of tasks may share it. At most `append.in_flight_max` events are unacknowledged at a time:
    who appends faster than Kafka takes it, waits.
    """

    def __init__(self, settings: ProducerSettings) -> None:
        """Take the settings; nothing is connected before `async with`."""
        self._settings = settings
        self._limits = settings.append
        self._slots = asyncio.Semaphore(settings.append.in_flight_max)
        self._codec = Codec()
        self._producers: dict[str, Producer] = {}
        self._spans: AppendSpans | None = None
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Connect. Raises UnavailableError or ConfigError with what Kafka or the schema registry says."""
        try:
            await self._connect()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what is unacknowledged, at most `append.delivery_timeout_seconds`, and disconnect."""
        # Nobody waits for what Kafka doesn't take, or after Ctrl-C.
        hopeless = kind is not None and (not issubclass(kind, Exception) or issubclass(kind, NotAcknowledged))
        try:
            async with asyncio.timeout(0 if hopeless else self._limits.delivery_timeout_seconds):
                for producer in self._producers.values():
                    await producer.stop()
        except TimeoutError:
            pass
        finally:
            for producer in self._producers.values():
                await producer.abandon()
            self._producers.clear()
            await self._resources.aclose()

    async def append(self, event: Event) -> Appended:
        """Append one event, and return where it is once all replicas in sync have it.

        Raises NotAcknowledged after `append.delivery_timeout_seconds`, EventTooLarge, TypeError for what isn't an
        event, Halt for a topic that isn't there, ConfigError where this user may not write and RuntimeError outside of
        `async with`.
        """
        try:
            async with asyncio.timeout(self._limits.delivery_timeout_seconds):
                future = await self._send(event)
                return _appended(await future)
        except (KafkaError, TimeoutError) as error:
            self._refuse(event, 0, 0, error)

    async def append_many(
        self, events: Iterable[Event] | AsyncIterable[Event], progress: Callable[[int], None] | None = None
    ) -> int:
        """Append events in their order, and return how many were acknowledged: all of them.

        Reads `events` only as fast as Kafka takes them. `progress` is told every now and then, and however it ends, how
        many are acknowledged before the first one that isn't. Raises what `append` raises, for the oldest event that
        isn't acknowledged: all before it are in the log, those after it may be or not, and who goes on begins with it.
        An asynchronous source that makes wait is cancelled for it.
        """
        limits = self._limits
        flight = Flight(limits.delivery_timeout_seconds, limits.in_flight_max, progress or (lambda _: None))
        try:
            try:
                # A source that is waited for, as a pipe is, may have nothing for hours; another lets nobody watch.
                async with flight.settling() if isinstance(events, AsyncIterable) else nullcontext():
                    async for event in _each(events):
                        await self._send_in_order(event, flight)
            except (asyncio.CancelledError, MissingError):
                raise
            except BaseException:
                # An event that can't be sent, or read: the outcome of those before it is to be known.
                await flight.settle()
                raise
            await flight.settle()
        except MissingError as error:
            self._refuse(*error.missing)
        finally:
            flight.end()
        return flight.sent

    async def _connect(self) -> None:
        self._trace()
        registry = self._settings.kafka_config.schema_registry
        if registry is not None:
            client = await self._resources.enter_async_context(SchemaRegistry(registry))
            self._codec = Codec(client)
            await self._register()
        for topic in self._settings.kafka_config.topics.values():
            if topic.compression_type not in self._producers:
                producer = Producer(self._settings, topic.compression_type)
                self._producers[topic.compression_type] = producer
                await producer.start()

    async def _register(self) -> None:
        try:
            await self._codec.register()
        except Retry as away:
            raise UnavailableError(str(away)) from away
        except Halt as refusal:
            raise ConfigError(str(refusal)) from refusal

    def _trace(self) -> None:
        """Make spans from now on, if tracing is on."""
        telemetry = open_telemetry(self._settings, SERVICE)
        if telemetry is not None:
            from sitelog.streams._append_spans import AppendSpans  # noqa: PLC0415 - OpenTelemetry is optional

            self._spans = AppendSpans(telemetry.tracer)
            self._resources.push_async_callback(asyncio.to_thread, telemetry.close)

    async def _send(self, event: Event, before: Callable[[], None] = lambda: None) -> "asyncio.Future[RecordMetadata]":
        """Give an event to the producer once a slot is free; the slot is free again with its acknowledgement.

        `before` as in Producer.
        """
        key, value = record_of(event, self._codec, self._limits.event_bytes_max)
        topic = self._settings.kafka_config.topics[event.topic]
        producer = self._producers.get(topic.compression_type)
        if producer is None:
            raise RuntimeError(NOT_OPEN)
        send = partial(producer.send, event.topic, key, value, before=before)
        await self._slots.acquire()
        try:
            if self._spans is None:
                future = await send()
            else:
                future = await self._spans.send(event, key, send)
        except BaseException:
            self._slots.release()
            raise
        future.add_done_callback(lambda _: self._slots.release())
        return future

    async def _send_in_order(self, event: Event, flight: Flight) -> None:
        await flight.room()
        try:
            async with asyncio.timeout(self._limits.delivery_timeout_seconds):
                # Behind one that has failed it would be in the log before it, for good.
                future = await self._send(event, flight.settle_done)
        except EventTooLarge as error:
            error.position = flight.sent
            raise
        except _OF_THE_EVENT as error:
            self._refuse(event, flight.sent, 0, error)
        except (KafkaError, TimeoutError) as error:
            raise flight.not_sent(event, error) from error
        flight.add(event, future)
        if flight.sent % _YIELD_EVERY == 0:
            await asyncio.sleep(0)

    def _refuse(self, event: Event, position: int, others: int, error: BaseException) -> NoReturn:
        """Raise what Kafka's refusal of an event means."""
        if isinstance(error, TopicAuthorizationFailedError):
            user = self._settings.kafka_config.sasl_username or "this user"
            raise ConfigError(f"{_named(event)}: {user} may not write to {event.topic}") from error
        if isinstance(error, MessageSizeTooLargeError):
            raise EventTooLarge(
                f"{_named(event)}: expected what {event.topic} takes, got: {error}. Raise its max.message.bytes "
                "(`sitelog topics check` says to how much), or lower append.event_bytes_max and batch_bytes",
                position,
            ) from error
        seconds = self._limits.delivery_timeout_seconds
        reason = f"none within {seconds:g} s" if isinstance(error, TimeoutError) else repr(error)
        message = f"{_named(event)}: expected Kafka's acknowledgement, got {reason}. It may be in the log or not"
        if others:
            message += f", and so may {others:,} after it: append the same events again from this one on, each with its"
        else:
            message += ": append the same event again, with its"
        raise NotAcknowledged(f"{message} event_id", position) from error


def record_of(event: Event, codec: Codec, event_bytes_max: int) -> tuple[bytes, bytes]:
    """Return key and value as they go to Kafka. Raises EventTooLarge, and TypeError for what isn't an event."""
    if not isinstance(event, Event):
        raise TypeError(f"expected an event, got {type(event).__name__}")
    key, value = event.entity_id.encode(), codec.encode(event)
    size = len(key) + len(value)
    if size > event_bytes_max:
        raise EventTooLarge(
            f"{_named(event)}: expected at most {event_bytes_max} bytes (append.event_bytes_max), got {size}"
        )
    return key, value


def _named(event: Event) -> str:
    return f"{event.event_type} {event.event_id} of {event.entity_id}"


def _appended(metadata: RecordMetadata) -> Appended:
    return Appended(metadata.topic, metadata.partition, metadata.offset)


async def _each(events: Iterable[Event] | AsyncIterable[Event]) -> AsyncIterator[Event]:
    if isinstance(events, AsyncIterable):
        async for event in events:
            yield event
    else:
        for event in events:
            yield event
