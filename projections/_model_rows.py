"""A read model's rows in the binary format of COPY."""

from collections.abc import Iterable
from datetime import datetime
from struct import Struct
from typing import Final

from sitelog.projections._binary import micros, sized
from sitelog.projections._packed import RowFormat
from sitelog.projections._stored import Stored

Placed = tuple[tuple[object, ...], int, Stored]
"""A row's key, the log partition whose events have made it, and the row."""

# Each value after its length: count of columns | version | updated_at, log_partition, log_seq; see BOOKKEEPING.
_COUNT: Final = Struct(">h")
_VERSION: Final = Struct(">iq")
_TAIL: Final = Struct(">iqihiq")


class ModelPacker:
    """Packs rows of a table with these columns and the bookkeeping's, to stand between BEGIN and END."""

    def __init__(self, form: RowFormat, columns: int) -> None:
        self._form = form
        self._head = _COUNT.pack(columns)

    def packed(self, rows: Iterable[Placed]) -> bytes:
        """Return the rows of events that were applied. Raises UnfitValueError."""
        head, form = self._head, self._form
        parts: list[bytes] = []
        appended_at: datetime | None = None
        updated = 0
        for _, log_partition, stored in rows:
            at = stored.at
            assert at is not None  # noqa: S101 - the row of an event
            if at.append_time is not appended_at:
                appended_at = at.append_time
                updated = micros(appended_at)
            parts.append(head)
            parts.extend(stored.packed(form))
            parts.append(_VERSION.pack(8, stored.version))
            parts.append(sized(stored.versions_json()))
            parts.append(_TAIL.pack(8, updated, 2, log_partition, 8, at.log_seq))
        return b"".join(parts)
