"""The Kafka side of the transport: runs in Faust's consumer thread, where aiokafka lives."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar
from zlib import crc32

import aiokafka
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import IllegalStateError, KafkaError
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.types import TP

from sitelog.streams._batch import Position
from sitelog.streams._fetched import EpochRecords, LeanRecords, LeanResult
from sitelog.streams.errors import Halt, Retry, UnavailableError

OFFSETS_TIMEOUT_SECONDS: Final = 15.0
COMMIT_TIMEOUT_SECONDS: Final = 5.0
LEAVE_TIMEOUT_SECONDS: Final = 1.5
ANCHOR_TIMEOUT_SECONDS: Final = 10.0
ENDS_TIMEOUT_SECONDS: Final = 2.0

FIRST_POLL_RECORDS: Final = 500
FETCHES_MAX: Final = 4
"""Polls' worth of bytes that one answer of a broker may have."""
GROWTH: Final = 8
"""The first polls bring little, each so many times more than the one before: a start shows soon that it works."""

T = TypeVar("T")

EXIT_BEYOND_END: Final = 73
EXIT_BELOW_START: Final = 74
EXIT_OTHER_TOPIC: Final = 76


class BatchConsumerThread(AIOKafkaConsumerThread):
    """Adds to Faust's consumer thread what a position in Postgres needs: checked seeks, watched errors."""

    app: Any  # a BatchApp
    _records_max = FIRST_POLL_RECORDS

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # The fetcher has no other place for them; a worker's process has no other consumer.
        fetcher.MemoryRecords, fetcher.PartitionRecords, fetcher.FetchResult = EpochRecords, LeanRecords, LeanResult
        # What has come and isn't taken yet: all partitions together, where Faust sets each one's share only.
        consumer._fetch_max_bytes = FETCHES_MAX * self.app.poll_bytes_max  # noqa: SLF001
        # Faust hard-codes 1500 ms: an idle long poll then delays the bounds check on its connection by as much.
        consumer._fetch_max_wait_ms = self.app.fetch_wait_ms_max  # noqa: SLF001
        return consumer

    async def on_start(self) -> None:
        """Connect. Raises UnavailableError where no broker answers any more."""
        try:
            await super().on_start()
        except KafkaError as error:
            raise UnavailableError(f"Kafka can't be reached: {error}. `sitelog status` shows what runs") from error

    async def on_thread_stop(self) -> None:
        """Close the consumer; nothing that fails at that keeps the process from ending."""
        try:
            await super().on_thread_stop()
        except (asyncio.CancelledError, KafkaError) as error:
            # aiokafka cancels a fetch that waits for a broker to come back, and then takes its end for an own one.
            self.log.info("the consumer didn't close by itself: %r", error)
            if self._consumer is not None:
                await self._consumer._client.close()  # noqa: SLF001

    async def stop(self) -> None:
        """Stop the thread; one that has ended by itself has said why."""
        try:
            await super().stop()
        except RuntimeError as error:
            if not self.thread_loop.is_closed():
                raise
            self.log.info("the thread had ended: %s", error)

    def on_crash(self, msg: str, *fmt: Any, **kwargs: Any) -> None:  # noqa: ARG002 - mode's signature
        """Log what ended the thread: mode prints it, past all logging."""
        self.log.exception(msg.format(*fmt))  # noqa: LOG004 - mode calls it while it handles the error

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: Any,
        timeout: float | None = None,  # noqa: ASYNC109 - Faust's signature
        max_records: int | None = None,
    ) -> Any:
        # Faust calls the fetcher directly and so never consumes the coordinator's errors: after the first one
        # it would neither heartbeat nor rejoin, and go on as a zombie.
        consumer._coordinator.check_errors()  # noqa: SLF001
        bound = self._records_max if max_records is None else min(self._records_max, max_records)
        LeanResult.bytes_left = self.app.poll_bytes_max
        fetched = await super()._fetch_records(consumer, active_partitions, timeout, bound)
        if fetched and bound != max_records:
            self._records_max *= GROWTH
        # aiokafka gives out all that it has of one partition before the next. Batches of one partition are applied one
        # after the other, those of several side by side: each poll begins with a partition that had no turn lately.
        buffered = consumer._fetcher._records  # noqa: SLF001
        for tp in fetched:
            if tp in buffered:
                buffered[tp] = buffered.pop(tp)
        return fetched

    def ended_task(self) -> str | None:
        """Tell which of aiokafka's two tasks has ended, and why: nobody else looks, and nothing is read any more."""
        consumer = self._consumer
        if consumer is None:
            return None
        tasks = (
            ("fetching", getattr(consumer._fetcher, "_fetch_task", None)),  # noqa: SLF001
            ("its part in the group", getattr(consumer._coordinator, "_coordination_task", None)),  # noqa: SLF001
        )
        for name, task in tasks:
            if task is not None and task.done():
                why = "it was cancelled" if task.cancelled() else repr(task.exception())
                return f"{name} has ended: {why}"
        return None

    def missing_topics(self) -> list[str]:
        """Name the subscribed topics that the brokers' last answer about topics didn't have, and ask them again."""
        consumer = self._consumer
        if consumer is None:
            return []
        client = consumer._client  # noqa: SLF001 - consumer.topics() is one more request, whatever is missing
        missing = sorted(consumer.subscription() - client.cluster.topics())
        if missing:
            self.thread_loop.call_soon_threadsafe(client.force_metadata_update)
        return missing

    def coordinator_error(self) -> BaseException | None:
        """Return the error that the group coordinator waits for somebody to take, if there is one."""
        consumer = self._consumer
        if consumer is None:
            return None
        error: BaseException | None = getattr(consumer._coordinator, "_pending_exception", None)  # noqa: SLF001
        return error

    async def seek_to_position(self, tp: TP, position: Position) -> None:
        """Make `position` the next record to be fetched, after checking that the topic still has it.

        Raises Halt where records between are gone or the topic isn't the one that was read before, and Retry
        where Kafka didn't answer in time. Cancelled, it seeks no more.
        """
        await self._asked(tp, self._seek_to_position(tp, position))

    async def bounds(self, tp: TP) -> tuple[int, int]:
        """Return the first offset and the one behind the last. Raises Retry where Kafka didn't answer in time."""
        return await self._asked(tp, self._bounds(tp))

    async def ends(self, tps: Sequence[TP]) -> Mapping[TP, int]:
        """Return where partitions end. Raises Retry where no answer comes in time."""
        return await self._asked(tps[0], self._ends(tps))

    async def _ends(self, tps: Sequence[TP]) -> Mapping[TP, int]:
        async with asyncio.timeout(ENDS_TIMEOUT_SECONDS):
            return {TP(*tp): end for tp, end in (await self._ensure_consumer().end_offsets(tps)).items()}

    async def _asked(self, tp: TP, question: Coroutine[Any, Any, T]) -> T:
        try:
            return await self._in_thread(question)
        except IllegalStateError as error:
            raise Retry(f"{tp.topic}[{tp.partition}] was revoked meanwhile") from error
        except (KafkaError, TimeoutError) as error:
            raise Retry(f"{tp.topic}[{tp.partition}]: Kafka did not answer: {error!r}") from error

    async def _bounds(self, tp: TP) -> tuple[int, int]:
        consumer = self._ensure_consumer()
        async with asyncio.timeout(OFFSETS_TIMEOUT_SECONDS):
            return (await consumer.beginning_offsets([tp]))[tp], (await consumer.end_offsets([tp]))[tp]

    async def _seek_to_position(self, tp: TP, position: Position) -> None:
        consumer = self._ensure_consumer()
        first, end = await self._bounds(tp)
        check_bounds(tp.topic, tp.partition, position.next_offset, first, end)
        if position.anchor is None or position.next_offset == first:
            consumer.seek(tp, position.next_offset)
            return
        consumer.seek(tp, position.next_offset - 1)
        async with asyncio.timeout(ANCHOR_TIMEOUT_SECONDS):
            value = await self._read_one(consumer, tp)
        check_anchor(tp.topic, tp.partition, position, value)

    async def _read_one(self, consumer: Any, tp: TP) -> bytes | None:
        while True:
            LeanResult.bytes_left = self.app.poll_bytes_max
            fetched = await consumer._fetcher.fetched_records([tp], timeout=1.0, max_records=1)  # noqa: SLF001
            for record in fetched.get(tp, ()):
                value: bytes | None = record.value
                return value

    async def commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit hints; return whether Kafka has taken them. Cancelled, it commits no more."""
        return await self._in_thread(self._commit(offsets))

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        # Only a hint for tools that show lag: Postgres has the truth. Faust's own version crashes the worker
        # on any error, and has no bound.
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_SECONDS):
                hints = {TopicPartition(*tp): offset for tp, offset in offsets.items() if tp in assigned}
                await consumer.commit(hints)
        except Exception as error:  # noqa: BLE001 - nothing that goes wrong with a hint may end the worker
            self.log.info("offset hint not committed: %r", error)
            return False
        return True

    async def leave_group(self) -> None:
        """Tell the group that this member is gone, so that nobody waits for its session to expire."""
        if self._consumer is None:
            return
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT_SECONDS):
                await self._in_thread(self._consumer._coordinator._maybe_leave_group())  # noqa: SLF001
        except (KafkaError, TimeoutError) as error:
            self.log.info("left without telling the group: %r", error)

    async def _in_thread(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` in this thread, and cancel it there as well when the caller is cancelled.

        `call_thread` does neither that nor more than two calls at once: a seek that belongs to an assignment
        which is over would go on, and take records away from under the next one.
        """
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.thread_loop))


def check_bounds(topic: str, partition: int, next_offset: int, first: int, end: int) -> None:
    """Raise Halt unless the topic holds every record from `next_offset` on: `first <= next_offset <= end`."""
    where = f"{topic}[{partition}]"
    if next_offset < first:
        raise Halt(
            f"{where}: the stored position {next_offset} is below the topic's first offset {first}: "
            f"{first - next_offset} events were deleted before they were applied. "
            "Restore them, or accept the loss with `sitelog position set` (docs/operations.md, exit 74)",
            EXIT_BELOW_START,
        )
    if next_offset > end:
        raise Halt(
            f"{where}: the stored position {next_offset} is beyond the topic's end {end}: the topic was truncated "
            "or created again, or this database belongs to another cluster (docs/operations.md, exit 73)",
            EXIT_BEYOND_END,
        )


def check_anchor(topic: str, partition: int, position: Position, value: bytes | None) -> None:
    """Raise Halt unless `value`, the record before the position, is the one that was applied last."""
    found = crc32(value or b"")
    if found != position.anchor:
        raise Halt(
            f"{topic}[{partition}]: the record at offset {position.next_offset - 1} is not the one applied last: "
            f"expected checksum {position.anchor}, found {found}: the topic was created again, or this database "
            "belongs to another cluster (docs/operations.md, exit 76)",
            EXIT_OTHER_TOPIC,
        )
