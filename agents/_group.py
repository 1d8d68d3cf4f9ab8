"""Batches that share a transaction, gathered while those before them are under way."""

import asyncio
from typing import Self

from sitelog.streams._batch import Place, RecordBatch


class Group:
    """Small batches that gather, one of each partition, until those before them are done; or one large batch.

    `begun` once nothing more is taken. `earlier` are the groups that have to be done first, `later` wait for this one.
    """

    def __init__(self, records_max: int, bytes_max: int) -> None:
        self.batches: dict[Place, RecordBatch] = {}
        self.begun = asyncio.Event()
        self.earlier: set[Group] = set()
        self.later: set[Group] = set()
        self._records_left = records_max
        self._bytes_left = bytes_max
        self._changed = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Tell whether there is so much that it is worth a transaction."""
        return self._records_left <= 0 or self._bytes_left <= 0

    def takes(self, batch: RecordBatch) -> bool:
        """Tell whether the batch may come along; if it isn't its partition's first here, it becomes part of that."""
        first = self.batches.get(batch.place)
        has_room = len(batch.records) <= self._records_left and self._bytes_left > 0
        return has_room and (first is None or first.claim is batch.claim)

    def add(self, batch: RecordBatch, earlier: Self | None) -> None:
        """Take a batch, and the group that its partition was in before."""
        first = self.batches.get(batch.place)
        self.batches[batch.place] = batch if first is None else first.followed_by(batch)
        self._records_left -= len(batch.records)
        if not self.is_full:
            self._bytes_left -= batch.bytes
        if earlier is not None and earlier is not self:
            self.earlier.add(earlier)
            earlier.later.add(self)
        self._changed.set()

    async def wait_for_earlier(self, *, unless_full: bool) -> None:
        """Return when the groups before this one are done; `unless_full` also when it is worth decoding till then."""
        while self.earlier and not (unless_full and self.is_full):
            self._changed.clear()
            await self._changed.wait()

    def done(self) -> None:
        """Let those go on that wait for this group."""
        for group in self.later:
            group.earlier.discard(self)
            group._changed.set()  # noqa: SLF001 - another one of these
        self.later.clear()
