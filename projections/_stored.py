"""A row as the store has it, with what is kept beside it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

# Where one is made for every event or row, it is no dataclass: the compiler can't see into a dataclass's __init__.


class At:
    """An event's place: its number in the log, and when it was appended."""

    __slots__ = ("append_time", "log_seq")

    def __init__(self, log_seq: int, append_time: datetime) -> None:
        self.log_seq = log_seq
        self.append_time = append_time


class Stored:
    """A row's values, in the order of its columns, and its bookkeeping; `dirty` rows are to be written."""

    __slots__ = ("dirty", "field_versions", "log_seq", "updated_at", "values", "version")

    def __init__(
        self,
        values: list[Any],
        version: int,
        field_versions: dict[str, int],
        updated_at: datetime,
        log_seq: int,
        *,
        dirty: bool = False,
    ) -> None:
        self.values = values
        self.version = version
        self.field_versions = field_versions
        self.updated_at = updated_at
        self.log_seq = log_seq
        self.dirty = dirty

    def change(self, values: dict[int, Any], fields: Sequence[str], at: At) -> None:
        """Set values by their index, as the event at this place has them, and note which fields that were."""
        mine = self.values
        for index, value in values.items():
            mine[index] = value
        self.version += 1
        for field in fields:
            self.field_versions[field] = self.version
        self.updated_at = at.append_time
        self.log_seq = at.log_seq
        self.dirty = True
