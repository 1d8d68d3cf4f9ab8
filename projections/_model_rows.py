"""A read model's rows in the binary format of COPY."""

from collections.abc import Iterable, Sequence
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
_CTID_SIZE: Final = (6).to_bytes(4, "big")
_TAIL: Final = Struct(">iqihiq")


class ModelPacker:
    """Packs rows of a table with these columns and the bookkeeping's, to stand between BEGIN and END."""

    def __init__(self, form: RowFormat, columns: int, wanted: Sequence[bool] | None = None) -> None:
        """Pack each row's `ctid` and the values that are wanted, all values and no `ctid` unless given."""
        self._form = form
        self._head = _COUNT.pack(columns)
        self._wanted = wanted

    def packed(self, rows: Iterable[Placed]) -> bytes:
        """Return the rows of events that were applied. Raises UnfitValueError."""
        head, form, wanted = self._head, self._form, self._wanted
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
            if wanted is None:
                parts.extend(stored.packed(form))
            else:
                assert stored.ctid is not None  # noqa: S101 - chosen for it
                parts.append(_CTID_SIZE)
                parts.append(stored.ctid)
                parts.extend(stored.picked(form, wanted))
            parts.append(_VERSION.pack(8, stored.version))
            parts.append(sized(stored.versions_json()))
            parts.append(_TAIL.pack(8, updated, 2, log_partition, 8, at.log_seq))
        return b"".join(parts)
