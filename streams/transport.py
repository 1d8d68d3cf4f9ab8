"""A Faust transport that hands agents whole record batches, and takes its positions from Postgres.

Faust spends about 90 µs an event in its drain loop (four asyncio tasks each), commits offsets that were never
applied when an agent fails, and seeks to Kafka's committed offsets after every rebalance. Here one Faust
message carries everything that a poll brought, a partition is read only under a claim, and a claim is over
at the next rebalance. Agents, rebalancing and timers stay Faust's own.
"""

import asyncio
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, Final

from aiokafka.errors import ConsumerStoppedError, IllegalStateError, KafkaError, OffsetOutOfRangeError
from faust.exceptions import ConsumerNotStarted
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode import Service

from sitelog.streams._batch import Claim, Record, RecordBatch, Wait
from sitelog.streams._consumer_thread import BatchConsumerThread
from sitelog.streams._fetched import EXIT_HOLE, NO_LOG, LeanResult
from sitelog.streams._lasting import Lasting
from sitelog.streams.errors import Halt, Retry
from sitelog.streams.topics import EXIT_TOPICS

POLL_SECONDS: Final = 1.0
POLL_SECONDS_WHILE_CLAIMING: Final = 0.1
CLAIM_RETRY_SECONDS: Final = 0.5
FLOW_STOPPED_SECONDS_MAX: Final = 120.0
TOPIC_MISSING_SECONDS_MAX: Final = 10.0
"""A broker that has just started may not know all of them yet."""
CLIENT_SECONDS_MAX: Final = 5.0
"""Until Kafka's client says whether Kafka answers: it gives up sooner by itself."""
LAST_HINT_SECONDS_MAX: Final = 1.0
"""Before partitions go to somebody else: a group that is rebalancing already takes no hint, and has others wait."""

EXIT_COORDINATOR: Final = 72
EXIT_FENCED: Final = 75
EXIT_FLOW_STOPPED: Final = 78


class BatchConsumer(driver.Consumer):
    """Reads claimed partitions and delivers one message per poll."""

    app: Any  # a BatchApp
    _thread: BatchConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.claims: dict[TP, Claim] = {}
        self._claiming: dict[TP, asyncio.Task[None]] = {}
        self._put_off: dict[TP, asyncio.Task[None]] = {}
        self._claims_changed = asyncio.Event()
        self._progressed = asyncio.Event()
        self._term = object()  # replaced by every rebalance: what was begun under another term is void
        self._hints: dict[TP, int] = {}
        self._hinted: dict[TP, int] = {}
        self._halting: asyncio.Task[None] | None = None
        self.joined = False
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # Rebalancing: every claim ends, and is made anew by the drain loop when it first needs the partition.

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """End all claims first: nothing that is still in memory may be applied under the next assignment."""
        self._new_term()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Take note that this worker has been a member of the group."""
        self.joined = True
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Only forget the claims: Faust's recovery ends silently, for ever, if this is slow."""
        self._new_term()

    def _new_term(self) -> None:
        self._term = object()
        for claim in self.claims.values():
            claim.void = True
        self.claims.clear()
        for task in (*self._claiming.values(), *self._put_off.values()):
            task.cancel()
        self._claiming.clear()
        self._put_off.clear()
        self._hints.clear()
        self._hinted.clear()
        self._claims_changed.set()
        self._progressed.set()

    # Claims.

    def _claim_missing(self) -> None:
        for tp in self._get_active_partitions() - self.claims.keys() - self._claiming.keys() - self._put_off.keys():
            task = asyncio.create_task(self._claim(tp, self._term), name=f"claim {tp.topic}[{tp.partition}]")
            self._claiming[tp] = task

    async def _claim(self, tp: TP, term: object) -> None:
        """Claim one partition, on its own: a locked row or a slow broker must not hold up the others."""
        with self._halting_for(tp):
            await self._claim_patiently(tp, term)

    @contextmanager
    def _halting_for(self, tp: TP) -> Iterator[None]:
        """End the process for what goes wrong in a task that nobody awaits: the partition would stand still."""
        try:
            yield
        except Halt as halt:
            self.halt(halt)
        except Exception as error:
            self.log.exception("%s[%d] can't be claimed", tp.topic, tp.partition)
            self.halt(Halt(f"{tp.topic}[{tp.partition}] can't be claimed: {type(error).__name__}: {error}"))

    async def _claim_patiently(self, tp: TP, term: object) -> None:
        refused_since: float | None = None
        while term is self._term:
            waited = 0.0 if refused_since is None else monotonic() - refused_since
            try:
                claim = await self._try_claim(tp, force=waited > self.app.claim_grace_seconds)
            except Retry as retry:
                self.log.warning("claim of %s[%d] put off: %s", tp.topic, tp.partition, retry)
                claim, refused_since = None, None
            else:
                refused_since = refused_since or monotonic()
            if claim is not None and term is self._term:
                self.claims[tp] = claim
                del self._claiming[tp]
                self._claims_changed.set()
                return
            await asyncio.sleep(CLAIM_RETRY_SECONDS)

    async def _try_claim(self, tp: TP, *, force: bool) -> Claim | None:
        generation = self.app.consumer_generation_id
        if force:  # who is cut off from Kafka doesn't hear that its partition has gone to somebody else
            await self._thread.bounds(tp)
        position = await self.app.positions.claim(tp.topic, tp.partition, generation, force=force)
        if position is None:
            return None
        await self._thread.seek_to_position(tp, position)
        return Claim(tp.topic, tp.partition, position.epoch, position.next_offset, position.next_offset)

    def reclaim(self, claim: Claim) -> None:
        """Give a claim up and claim anew, after a batch got lost between here and the transaction."""
        claim.void = True
        tp = TP(claim.topic, claim.partition)
        if self.claims.get(tp) is claim:
            del self.claims[tp]
            self._claims_changed.set()

    def put_off(self, claim: Claim, until: Wait) -> None:
        """Give a claim up, and claim anew once `until` has returned: what was read is read again then."""
        tp = TP(claim.topic, claim.partition)
        if self.claims.get(tp) is claim:
            task = asyncio.create_task(self._wait_put_off(tp, until), name=f"put off {tp.topic}[{tp.partition}]")
            self._put_off[tp] = task
        self.reclaim(claim)

    async def _wait_put_off(self, tp: TP, until: Wait) -> None:
        with self._halting_for(tp):
            await until()
            del self._put_off[tp]
            self._claims_changed.set()

    def put_offs(self) -> set[TP]:
        """Return the partitions that wait for something before they are claimed anew."""
        return set(self._put_off)

    def fence(self, claim: Claim) -> None:
        """Touch this partition no more until the next rebalance: somebody else has claimed it since."""
        if claim.void or claim.fenced:
            return
        claim.fenced = True
        self.log.warning("%s[%d]: fenced at epoch %d", claim.topic, claim.partition, claim.epoch)
        self.add_future(self._exit_unless_rebalanced(claim))

    async def _exit_unless_rebalanced(self, claim: Claim) -> None:
        await self.sleep(self.app.fence_grace_seconds)
        if not claim.void and not self.should_stop:
            self.halt(
                Halt(
                    f"{claim.topic}[{claim.partition}] was claimed by another worker and no rebalance followed within "
                    f"{self.app.fence_grace_seconds:.0f} s: two consumer groups share this database, or two workers "
                    "share one instance id (docs/operations.md, exit 75)",
                    EXIT_FENCED,
                )
            )

    def unclaimed(self) -> set[TP]:
        """Return the partitions that are assigned to this worker and that it may not read (yet), but for `put_offs`."""
        return {tp for tp in self._assigned() - self._put_off.keys() if tp not in self.claims or self.claims[tp].fenced}

    def end_of(self, claim: Claim) -> int | None:
        """Return the end of a claimed partition as the last fetch told it; None before the first fetch."""
        try:
            end: int | None = self.highwater(TP(claim.topic, claim.partition))
        except (IllegalStateError, AssertionError):
            return None
        return end

    async def unanswered(self, claims: Sequence[Claim]) -> str | None:
        """Ask Kafka where these partitions end: return why it doesn't say, None where it does.

        None too where its client says nothing at all: that is no reason to wait.
        """
        try:
            await self._ends([TP(claim.topic, claim.partition) for claim in claims])
        except Retry as retry:
            return str(retry)
        return None

    async def ends_of(self, tps: Collection[TP]) -> Mapping[TP, int]:
        """Ask Kafka where these partitions end; return what it says, nothing if it doesn't."""
        try:
            return await self._ends(list(tps))
        except Retry:
            return {}

    async def _ends(self, tps: Sequence[TP]) -> Mapping[TP, int]:
        try:
            async with asyncio.timeout(CLIENT_SECONDS_MAX):
                return await self._thread.ends(tps)
        except (TimeoutError, RuntimeError) as error:
            self.log.info("Kafka's client didn't answer: %r", error)
            return {}

    # The drain loop.

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):  # noqa: SLF001
                await self._drain_once()
        except (ConsumerStoppedError, asyncio.CancelledError):
            if not self.app.should_stop:
                raise
        except KafkaError as error:
            self.halt(Halt(f"Kafka refused: {error!r}", EXIT_COORDINATOR))
        except Halt as halt:
            await self._apply_what_was_read()
            self.halt(halt)
        except Exception as error:
            self.log.exception("reading failed")
            self.halt(Halt(f"reading failed: {type(error).__name__}: {error}"))

    async def _drain_once(self) -> None:
        if not self.flow_active:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.can_resume_flow.wait(), POLL_SECONDS)
            return
        term = self._term
        self._claims_changed.clear()
        self._claim_missing()
        readable = {tp for tp, claim in self.claims.items() if not claim.fenced}
        if not readable:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._claims_changed.wait(), POLL_SECONDS)
            return
        timeout = POLL_SECONDS_WHILE_CLAIMING if self._claiming else POLL_SECONDS
        try:
            fetched: Mapping[TP, list[Record]] = await self._getmany(readable, timeout)
        except OffsetOutOfRangeError as error:
            await self._reclaim_out_of_range(error)
            return
        except KafkaError:
            # A partition that is assigned anew has no offset until it is claimed: no business of an older poll.
            if term is self._term:
                raise
            return
        if term is not self._term:
            return  # read under an assignment that is over
        batches: list[RecordBatch] = []
        try:
            for tp, records in fetched.items():
                batch = self._batch(tp, records)
                if batch is not None:
                    batches.append(batch)
        finally:
            if batches:
                await self._hand_over(batches)

    async def _apply_what_was_read(self) -> None:
        """Wait till everything before a record that ends the process is applied: whoever skips it skips only that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.app.drain_seconds):
                while any(claim.applied_offset < claim.read_offset for claim in self.claims.values()):
                    self._progressed.clear()
                    await self._progressed.wait()

    async def _reclaim_out_of_range(self, error: OffsetOutOfRangeError) -> None:
        """Claim anew what Kafka has no longer: the check of the bounds knows how much is gone, or that nothing is."""
        self.log.warning("a fetch was refused: %s", error)
        for tp in error.args[0]:
            if tp in self.claims:
                self.reclaim(self.claims[tp])
        await asyncio.sleep(CLAIM_RETRY_SECONDS)

    def _batch(self, tp: TP, records: list[Record]) -> RecordBatch | None:
        """Return a partition's records as what continues its claim, None if they don't. Raises Halt for a hole."""
        claim = self.claims.get(tp)
        if claim is None or claim.void or claim.fenced:
            return None
        first, end = records[0].offset, records[-1].offset + 1
        epoch, last_epoch = LeanResult.epochs[tp]
        if first < claim.read_offset or claim.leader_epoch not in {None, epoch}:
            # What a new leader doesn't have it may have replaced: the claim looks at the last record that was applied.
            self.reclaim(claim)
            return None
        if first != claim.read_offset or end - first != len(records):
            raise Halt(
                f"{tp.topic}[{tp.partition}]: expected {len(records)} records from offset {claim.read_offset} on, got "
                f"{first} to {end - 1}: {NO_LOG}",
                EXIT_HOLE,
            )
        highwater = self.highwater(tp)
        claim.read_offset = end
        claim.leader_epoch = last_epoch
        if claim.oldest_ms is None:
            claim.oldest_ms = records[0].timestamp
        return RecordBatch(claim, first, end, records, highwater if highwater is not None else end)

    async def _hand_over(self, batches: Sequence[RecordBatch]) -> None:
        """Wait for room in the agent's queue, but no longer than until the flow is suspended."""
        first = batches[0]
        message = ConsumerMessage(
            first.topic,
            first.partition,
            first.end - 1,
            first.records[-1].timestamp / 1000.0,
            0,
            None,
            None,
            batches,  # type: ignore[arg-type]  # PollSchema takes them out again
            None,
            tp=TP(first.topic, first.partition),
            serialized_key_size=0,
            serialized_value_size=0,
            generation_id=self.app.consumer_generation_id,
        )
        deliver = asyncio.ensure_future(self.callback(message))
        suspended = asyncio.ensure_future(self.suspend_flow.wait())
        try:
            await asyncio.wait({deliver, suspended}, return_when=asyncio.FIRST_COMPLETED)
            if not deliver.done():
                for batch in batches:
                    self.reclaim(batch.claim)
        finally:
            deliver.cancel()
            suspended.cancel()
            with suppress(asyncio.CancelledError):
                await deliver

    # Acknowledging: Postgres has the position, so Kafka's committed offset is a hint for tools that show lag.

    def ack(self, message: Any) -> bool:
        """Forget the message; the transaction has moved the position already."""
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    def applied(self, batch: RecordBatch) -> None:
        """Take note that a batch was committed to Postgres."""
        batch.claim.applied_offset = batch.end
        self._progressed.set()
        if not batch.claim.void:
            self._hints[TP(batch.topic, batch.partition)] = batch.end

    async def force_commit(self, *_: Any, **__: Any) -> bool:
        """Commit the hints that have changed; errors are logged only."""
        changed = {tp: offset for tp, offset in self._hints.items() if self._hinted.get(tp) != offset}
        if not changed or not await self._thread.commit(changed):
            return False
        self._hinted.update(changed)
        return True

    async def wait_empty(self) -> None:
        """Let the transactions that are under way finish, for a bounded time: the fence protects the rest."""
        if self.app.should_stop:
            self._new_term()  # nothing more is begun, nor tried again: that is the next start's
        if not await self.app.sink.wait_idle(self.app.drain_seconds):
            self.log.warning("batches still under way after %.0f s are left to the fence", self.app.drain_seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_HINT_SECONDS_MAX):
                await self.commit()

    def on_buffer_full(self, tp: TP) -> None:
        """Do nothing: the queue's own bound is the back-pressure."""

    def on_buffer_drop(self, tp: TP) -> None:
        """Do nothing: the queue's own bound is the back-pressure."""

    async def verify_all_partitions_active(self) -> None:
        """Do nothing: Faust's livelock detector compares two different clocks; `_watch` and /livez do its work."""

    # What must end the process.

    @Service.task
    async def _watch(self) -> None:
        """Stop where Faust would go on as a zombie: an error nobody takes, a flow that nobody resumes."""
        stopped, gone = Lasting(FLOW_STOPPED_SECONDS_MAX), Lasting(TOPIC_MISSING_SECONDS_MAX)
        while not self.should_stop:
            await self.sleep(1.0)
            missing = self._thread.missing_topics() if self.joined else []
            if gone.too_long(holds=bool(missing)):
                self.halt(
                    Halt(f"expected the topic {missing[0]}, got none of that name any more (exit 79)", EXIT_TOPICS)
                )
            error = self._thread.coordinator_error()
            if error is not None:
                self.halt(Halt(f"the consumer group refused this worker: {error!r} (exit 72)", EXIT_COORDINATOR))
            ended = self._thread.ended_task()
            # While the app waits for its last batches, a rebalance makes Faust close the client.
            if ended is not None and not self.app.should_stop:
                self.halt(Halt(f"Kafka's client can't go on: {ended}"))
            if stopped.too_long(holds=not self.flow_active and bool(self._assigned())):
                self.halt(Halt("partitions are assigned but reading never resumed (exit 78)", EXIT_FLOW_STOPPED))

    def _assigned(self) -> set[TP]:
        try:
            assigned: set[TP] = self.assignment()
        except (IllegalStateError, ConsumerNotStarted):
            return set()
        return assigned

    def halt(self, halt: Halt) -> None:
        """End the process with the halt's exit code, leaving the group first. The first halt wins."""
        if self._halting is None and not self.should_stop:
            self.log.critical("%s", halt)
            self._halting = asyncio.create_task(self._die(halt), name="halt")

    async def _die(self, halt: Halt) -> None:
        try:
            self.app.on_halt(halt)
            await self._thread.leave_group()
        finally:
            os._exit(halt.exit_code)


class BatchTransport(driver.Transport):
    """Faust's aiokafka transport with the batch consumer; URL scheme `batch://`."""

    Consumer = BatchConsumer
