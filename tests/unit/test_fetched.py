"""What a poll takes of what Kafka has sent: batches of real bytes, as a broker's answer has them."""

import gc
import struct
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_UNCOMMITTED
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from sitelog.streams._fetched import TAKEN_AT_ONCE, EpochRecords, LeanRecords, LeanResult
from sitelog.streams.errors import Halt

PARTITION = TopicPartition("customer-sites-events", 0)
NO_COMPRESSION = 0
TRANSACTIONAL = 0x10
CONTROL = 0x20
MUCH = 1_000_000


def batch(start: int, values: Sequence[bytes | None]) -> bytes:
    """One of Kafka's batches, with records from this offset on."""
    builder = DefaultRecordBatchBuilder(2, NO_COMPRESSION, 0, -1, -1, -1, MUCH)
    for number, value in enumerate(values):
        assert builder.append(number, 1_000, b"site-1", value, [("name", b"")]) is not None
    built = bytes(builder.build())
    return start.to_bytes(8) + built[8:]


def resealed(one: bytes, flags: int = 0) -> bytes:
    """The batch with these flags, and its checksum made anew."""
    changed = bytearray(one)
    changed[22] |= flags
    struct.pack_into(">I", changed, 17, calc_crc32c(bytes(changed[21:])))
    return bytes(changed)


def led(epoch: int, one: bytes) -> bytes:
    """The batch as a leader has written it in this epoch."""
    return one[:12] + epoch.to_bytes(4) + one[16:]


def records(*batches: bytes, position: int = 0) -> LeanRecords:
    return LeanRecords(PARTITION, EpochRecords(b"".join(batches)), [], position, None, None, True, READ_UNCOMMITTED)


def offsets(taken: Sequence[Any]) -> list[int]:
    return [record.offset for record in taken]


def test_records_come_in_order_across_batches_as_many_as_are_wanted() -> None:
    fetched = records(batch(0, [b"a", b"b", b"c"]), batch(3, [b"d", None]))
    first, size = fetched.take(2, MUCH)
    assert ([record.value for record in first], size, fetched.next_fetch_offset) == ([b"a", b"b"], 2, 2)
    rest, size = fetched.take(100, MUCH)
    assert ([record.value for record in rest], size, fetched.next_fetch_offset) == ([b"c", b"d", None], 2, 5)
    assert not fetched.has_more()


def test_no_more_bytes_are_taken_than_wanted_but_one_record_always() -> None:
    fetched = records(*(batch(number, [bytes(1_000)]) for number in range(5)))
    assert offsets(fetched.take(100, 1)[0]) == [0]
    assert offsets(fetched.take(100, 1_001)[0]) == [1, 2]
    assert fetched.take(100, 0) == ([], 0)
    assert offsets(fetched.take(100, MUCH)[0]) == [3, 4]


def test_within_one_batch_the_bytes_are_exceeded_by_a_piece_at_most() -> None:
    fetched = records(batch(0, [bytes(1_000)] * 100))
    taken, size = fetched.take(100, 1)
    assert (len(taken), size) == (TAKEN_AT_ONCE, TAKEN_AT_ONCE * 1_000)


def test_a_batch_that_begins_before_the_position_is_taken_from_there() -> None:
    fetched = records(batch(0, [b"x"] * 50), position=2 * TAKEN_AT_ONCE + 3)
    assert offsets(fetched.take(100, MUCH)[0]) == list(range(2 * TAKEN_AT_ONCE + 3, 50))


@pytest.mark.parametrize("flag", [TRANSACTIONAL, TRANSACTIONAL | CONTROL, CONTROL])
def test_what_is_before_a_producers_transaction_is_taken_before_that_is_refused(flag: int) -> None:
    fetched = records(batch(0, [b"a", b"b"]), resealed(batch(2, [b"c", b"d"]), flag), batch(4, [b"e"]))
    assert offsets(fetched.take(100, MUCH)[0]) == [0, 1]
    for _ in range(2):
        assert fetched.has_more()
        with pytest.raises(Halt, match=r"outside of transactions, got those of one from offset 2 to 3: ") as halt:
            fetched.take(100, MUCH)
        assert halt.value.exit_code == 74


def test_bytes_that_were_damaged_on_the_way_are_no_records() -> None:
    damaged = bytearray(batch(0, [b"value"]))
    damaged[-1] ^= 1
    with pytest.raises(CorruptRecordException, match=r"customer-sites-events\[0\]"):
        records(bytes(damaged)).take(100, MUCH)


def test_records_before_an_unreadable_one_are_taken_before_it_is_refused() -> None:
    unreadable = batch(2, [b"c", b"d", b"e"])
    at = unreadable.index(b"name", unreadable.index(b"name") + 1)
    fetched = records(batch(0, [b"a", b"b"]), resealed(unreadable[:at] + b"\xff" * 4 + unreadable[at + 4 :]))
    assert offsets(fetched.take(100, MUCH)[0]) == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(Halt, match=r"customer-sites-events\[0\]: .* record at offset 3, got b'\\xff.* skip to 5 "):
            fetched.take(100, MUCH)
    # Kafka sends the batch as a whole again: it is still the same record, not the one that was asked for.
    later = records(resealed(unreadable[:at] + b"\xff" * 4 + unreadable[at + 4 :]), position=4)
    with pytest.raises(Halt, match=r"record at offset 3, got .* skip to 5 "):
        later.take(100, MUCH)


def test_nothing_keeps_what_was_fetched_but_who_has_it() -> None:
    gc.disable()
    try:
        fetched = records(batch(0, [b"a"]))
        held = weakref.ref(fetched)
        del fetched
        assert held() is None
    finally:
        gc.enable()


@dataclass
class State:
    """aiokafka's state of one assigned partition."""

    position: int = 0
    paused: bool = False

    def consumed_to(self, position: int) -> None:
        self.position = position


@dataclass
class Assignment:
    """aiokafka's assignment, of one partition."""

    state: State = field(default_factory=State)
    active: bool = True

    def state_value(self, _: TopicPartition) -> State:
        return self.state


def result(*batches: bytes) -> LeanResult:
    return LeanResult(PARTITION, assignment=Assignment(), partition_records=records(*batches), backoff=0.1)


@pytest.fixture(autouse=True)
def poll() -> Iterator[None]:
    LeanResult.bytes_left = 2_000
    yield
    LeanResult.bytes_left = 0


def test_the_partitions_of_one_poll_share_its_bytes() -> None:
    one, other = (result(*(batch(number, [bytes(900)]) for number in range(4))) for _ in range(2))
    assert offsets(one.getall(100)) == [0, 1, 2]
    assert (other.getall(100), other.has_more()) == ([], True)
    LeanResult.bytes_left = 2_000
    assert offsets(other.getall(100)) == [0, 1, 2]


def test_a_partition_that_was_read_to_its_end_has_no_more() -> None:
    fetched = result(batch(0, [b"a", b"b"]))
    assert offsets(fetched.getall(100)) == [0, 1]
    assert (fetched.has_more(), fetched.getall(100)) == (False, [])


def test_what_was_fetched_before_a_seek_is_dropped() -> None:
    fetched = result(batch(0, [b"a", b"b"]))
    fetched._assignment.state.position = 1
    assert (fetched.getall(100), fetched.has_more()) == ([], False)


def test_each_poll_tells_under_which_leaders_its_first_and_its_last_record_were_written() -> None:
    fetched = result(led(3, batch(0, [b"a", b"b"])), led(3, batch(2, [b"c"])), led(7, batch(3, [b"d", b"e"])))
    told = []
    for records_max in (1, 1, 2, 10):
        taken = fetched.getall(records_max)
        told.append((offsets(taken), LeanResult.epochs[PARTITION]))
    assert told == [([0], (3, 3)), ([1], (3, 3)), ([2, 3], (3, 7)), ([4], (7, 7))]
