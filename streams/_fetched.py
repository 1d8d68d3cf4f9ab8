"""What a fetch has brought for one partition, handed out within bounds: of records, and of bytes once decompressed."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, ClassVar, Final

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords

from sitelog.streams._batch import Place
from sitelog.streams.errors import Halt

EXIT_HOLE: Final = 74
NO_LOG: Final = "a compacted or transactional topic can't be a log (exit 74)"

TAKEN_AT_ONCE: Final = 16
"""Records between two looks at their bytes: by so many at most the bound is exceeded."""


# In front of each of Kafka's own batches: offset, length of what comes behind it, the leader's epoch.
_LENGTH_AT: Final = 8
_EPOCH_AT: Final = 12
_EPOCH_END: Final = 16


class EpochRecords:
    """What a broker has sent for one partition; `leader_epoch` is that of the batch which was given out last.

    aiokafka leaves it out. Kafka raises it for each new leader, which may lack what the one before had.
    """

    leader_epoch = -1

    def __init__(self, data: bytes) -> None:
        self._records = MemoryRecords(data)
        self._data = data
        self._at = 0
        self.has_next = self._records.has_next
        self.size_in_bytes = self._records.size_in_bytes

    def next_batch(self) -> Any:
        """Return the next of Kafka's own batches."""
        data, at = self._data, self._at
        self.leader_epoch = int.from_bytes(data[at + _EPOCH_AT : at + _EPOCH_END], signed=True)
        self._at = at + _EPOCH_AT + int.from_bytes(data[at + _LENGTH_AT : at + _EPOCH_AT])
        return self._records.next_batch()


class LeanRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """Hands records over as the parser made them: a frozen dataclass for each costs as much as reading its bytes."""

    next_fetch_offset: int
    epochs: tuple[int, int] = (-1, -1)
    """Under which leaders the first and the last of the records were written that were taken last."""
    _records: EpochRecords
    _batch: Any = None
    _rest: Iterator[Any] = iter(())
    _refusal: Halt | None = None
    """Why the next record can't be taken."""
    _at = 0
    """The open batch's next record."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # It knows this object, which would so keep megabytes until the next garbage collection.
        self._records_iterator = None

    def take(self, records_max: int, bytes_max: int) -> tuple[list[Any], int]:
        """Return the next records and their bytes: no more than the bounds allow, and one at least if there is any.

        Raises Halt once the next record is one that aiokafka can't get past, or one of a producer's transaction: until
        that is committed it is no fact, and the marks between transactions are holes.
        """
        taken: list[Any] = []
        size = 0
        while len(taken) < records_max and size < bytes_max and self._is_open():
            epoch = self._records.leader_epoch
            piece = self._piece(min(TAKEN_AT_ONCE, records_max - len(taken)))
            if piece:
                self.epochs = (self.epochs[0] if taken else epoch, epoch)
            taken += piece
            size += sum([len(record.value or b"") for record in piece])
        if self._refusal is not None and not taken:
            raise self._refusal
        return taken, size

    def has_more(self) -> bool:
        """Tell whether there is anything left, if only an error."""
        return self._batch is not None or self._refusal is not None or self._records.has_next()

    def _is_open(self) -> bool:
        """Open the next of Kafka's own batches, unless one is open; False where there is none, or it can't be read."""
        while self._batch is None and self._refusal is None and self._records.has_next():
            batch = self._records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"{self._tp.topic}[{self._tp.partition}]: a batch has another checksum")
            if batch.is_transactional or batch.is_control_batch:
                self._refusal = self._transactional(batch)
            else:
                self._batch, self._at = batch, batch.base_offset
                self._rest = islice(batch, None)  # the batch itself lets nobody begin twice
        return self._batch is not None and self._refusal is None

    def _piece(self, records_max: int) -> list[Any]:
        """Return the open batch's next records, and close it after its last one."""
        piece: list[Any] = []
        unreadable: UnicodeDecodeError | None = None
        try:
            piece.extend(islice(self._rest, records_max))  # keeps those before an error
        except UnicodeDecodeError as error:
            unreadable = error
        if piece:
            self._at = piece[-1].offset + 1
        if unreadable is not None:
            self._refusal = self._has_no_name(unreadable)
        is_last = len(piece) < records_max and self._refusal is None
        if piece and piece[0].offset < self.next_fetch_offset:  # a batch comes whole, from wherever it is asked for
            piece = [record for record in piece if record.offset >= self.next_fetch_offset]
        if piece:
            self.next_fetch_offset = piece[-1].offset + 1
        if is_last:
            self.next_fetch_offset = self._batch.next_offset
            self._batch = None
        return piece

    def _transactional(self, batch: Any) -> Halt:
        return Halt(
            f"{self._tp.topic}[{self._tp.partition}]: expected records outside of transactions, got those of one from "
            f"offset {batch.base_offset} to {batch.next_offset - 1}: {NO_LOG}",
            EXIT_HOLE,
        )

    def _has_no_name(self, unreadable: UnicodeDecodeError) -> Halt:
        """Return why the open batch's next record stops all behind it: brokers don't check header names.

        Nor can Kafka be asked for what is behind it in the same batch, which always comes as a whole.
        """
        return Halt(
            f"{self._tp.topic}[{self._tp.partition}]: expected header names in UTF-8 in the record at offset "
            f"{self._at}, got {unreadable.object!r}. Neither it nor what its producer sent in one "
            f"batch with it can be read: have the producer mended, skip to {self._batch.next_offset} with `sitelog "
            "position set`, and have what is skipped appended again"
        )


class LeanResult(fetcher.FetchResult):  # type: ignore[misc]
    """Lets a poll's partitions share its bytes: aiokafka knows a bound for compressed ones only, for each partition.

    `bytes_left` is the poll's own, set before it, and `epochs` those of what it brought: a worker's process has no
    other consumer.
    """

    bytes_left: ClassVar[int] = 0
    epochs: ClassVar[dict[Place, tuple[int, int]]] = {}
    _partition_records: Any

    def getall(self, max_records: int | None = None) -> list[Any]:
        """Return what is left of the poll's share, possibly nothing; aiokafka's name."""
        if max_records is None:
            raise TypeError("expected a bound of records")
        if LeanResult.bytes_left <= 0 or not self.has_more() or not self.check_assignment(self._topic_partition):
            return []
        records: LeanRecords = self._partition_records
        taken, size = records.take(max_records, LeanResult.bytes_left)
        LeanResult.bytes_left -= size
        LeanResult.epochs[self._topic_partition] = records.epochs
        self._update_position()
        if not records.has_more():
            self._partition_records = None
        return taken
