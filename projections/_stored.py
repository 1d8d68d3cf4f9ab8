"""A row as the store has it, with what is kept beside it."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

import orjson

from sitelog.projections._packed import RowFormat

_NO_CHANGES: Final[dict[int, Any]] = {}

# Where one is made for every event or row, it is no dataclass: the compiler can't see into a dataclass's __init__.


class At:
    """An event's place: its number in the log, and when it was appended."""

    __slots__ = ("append_time", "log_seq")

    def __init__(self, log_seq: int, append_time: datetime) -> None:
        self.log_seq = log_seq
        self.append_time = append_time


class Stored:
    """A row's values, in the order of its columns, and its bookkeeping.

    `version` is how many events were applied to it, `at` the place of the last one: None as it was loaded, all others
    are to be written. Of one that was loaded, `ctid` is where in its table Postgres has it, and `log_partition` the one
    whose events have made it: None for one that was made anew.
    """

    __slots__ = (
        "_changes",
        "_form",
        "_record",
        "_values",
        "_versions",
        "_versions_json",
        "at",
        "ctid",
        "log_partition",
        "version",
    )

    def __init__(
        self, values: list[Any] | None, version: int, field_versions: dict[str, int] | None, at: At | None
    ) -> None:
        self.version = version
        self.at = at
        self.ctid: bytes | None = None
        self.log_partition: int | None = None
        self._values = values
        self._versions = field_versions
        # As it was loaded: of that only those values become objects that somebody asks for.
        self._form: RowFormat | None = None
        self._record = b""
        self._versions_json: str | None = None
        self._changes: dict[int, Any] | None = None

    @staticmethod
    def loaded(  # noqa: PLR0917 - by name it would cost more
        form: RowFormat, record: bytes, version: int, versions_json: str | None, ctid: bytes, log_partition: int
    ) -> "Stored":
        """Return a row as Postgres has sent it: its record, its bookkeeping and its place."""
        row = Stored(None, version, None, None)
        row.ctid = ctid
        row.log_partition = log_partition
        row._form = form
        row._record = record
        row._versions_json = versions_json
        return row

    @property
    def values(self) -> list[Any]:
        """All values; not to be changed."""
        if self._values is None:
            values = [] if self._form is None else self._form.values(self._record)
            if self._changes is not None:
                for index, value in self._changes.items():
                    values[index] = value
            self._values = values
        return self._values

    @property
    def field_versions(self) -> dict[str, int]:
        """The version at which each field changed last; not to be changed."""
        if self._versions is None:
            self._versions = orjson.loads(self._versions_json) if self._versions_json else {}
        return self._versions

    def value(self, index: int) -> Any:
        """Return one value."""
        if self._form is None or self._values is not None:
            return self.values[index]
        if self._changes is not None and index in self._changes:
            return self._changes[index]
        return self._form.value(self._record, index)

    def change(self, values: dict[int, Any], fields: Sequence[str], at: At) -> None:
        """Set values by their index, as the event at this place has them, and note which fields that were."""
        if self._form is not None:
            if self._changes is None:
                self._changes = {}
            self._changes.update(values)
        if self._values is not None:
            for index, value in values.items():
                self._values[index] = value
        self.version += 1
        versions = self.field_versions
        for field in fields:
            versions[field] = self.version
        self.at = at

    def counted(self, at: At) -> "Stored":
        """Return this row after one more event, which has changed nothing in it."""
        row = Stored(self._values, self.version + 1, self._versions, at)
        row.ctid = self.ctid
        row.log_partition = self.log_partition
        row._form = self._form
        row._record = self._record
        row._versions_json = self._versions_json
        row._changes = self._changes
        return row

    def packed(self, form: RowFormat) -> list[bytes]:
        """Return the values as COPY takes them. Raises UnfitValueError."""
        if self._form is None:
            return form.packed(self.values)
        return form.changed(self._record, self._changes or _NO_CHANGES)

    def changes(self) -> Collection[int]:
        """Return the indexes of the values that differ from those at its `ctid`."""
        return self._changes or _NO_CHANGES

    def picked(self, form: RowFormat, wanted: Sequence[bool]) -> list[bytes]:
        """Return some of the values as COPY takes them, of a row that has a `ctid`. Raises UnfitValueError."""
        return form.changed(self._record, self._changes or _NO_CHANGES, wanted)

    def versions_json(self) -> str | None:
        """Return the field versions as they are stored."""
        if self._versions is None:
            return self._versions_json
        return orjson.dumps(self._versions).decode() if self._versions else None
