"""Many rows of a read model, changed where they were found: no key is looked up again, only what changed is sent."""

from collections.abc import Sequence
from typing import Any, Final

from sitelog.projections._copy import PACKED_AT_ONCE, copy
from sitelog.projections._model_rows import ModelPacker, Placed
from sitelog.projections._packed import RowFormat
from sitelog.projections._pieces import pieces
from sitelog.projections._projection import BOOKKEEPING, OWNER, Projection

# Every name in this SQL is a literal of a read model's file, checked to be an identifier; values are parameters.
# ruff: noqa: S608

_CTID: Final = "ctid of t"
"""The column that says which row is meant; no read model's can have this name."""


def keeping_owner(source: str) -> str:
    """Return the assignment that refuses another partition's row."""
    # Null, which is refused: `_database.why_refused` says what it means.
    return f"{OWNER} = CASE WHEN {source}.{OWNER} = t.{OWNER} THEN t.{OWNER} END"


def is_newer(source: str) -> str:
    """Return the condition under which a row is written: it never goes back in its log."""
    return f"({source}.log_seq > t.log_seq OR {source}.{OWNER} <> t.{OWNER})"


class InPlace:
    """Updates rows of one table by `ctid`; `form` is theirs.

    A `ctid` holds as long as nobody else writes the row, and whoever holds a partition's position is alone in writing
    its rows. Should a row be elsewhere all the same, `write` says so, and they have to be written by their keys.
    """

    def __init__(self, projection: Projection[Any], table: str, form: RowFormat) -> None:
        self._projection = projection
        self._table = table
        self._form = form
        self._stage = f"change_{table}"
        self._stage_sql = (
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {self._stage} ON COMMIT DELETE ROWS AS "
            f'SELECT NULL::tid AS "{_CTID}", t.* FROM public.{table} AS t WITH NO DATA'
        )

    async def write(self, connection: Any, rows: Sequence[Placed]) -> bool:
        """Write rows that have a `ctid`, and tell whether each of them was there."""
        # Every row brings the columns that any of them has changed, or a statement for each mixture would be needed.
        changed = set().union(*(stored.changes() for _, _, stored in rows))
        columns = list(self._projection.columns)
        wanted = [index in changed or column in self._projection.key for index, column in enumerate(columns)]
        sent = [column for column, is_wanted in zip(columns, wanted, strict=True) if is_wanted]
        packer = ModelPacker(self._form, 1 + len(sent) + len(BOOKKEEPING), wanted)
        packed = map(packer.packed, pieces(sorted(rows, key=_place), PACKED_AT_ONCE))
        await connection.execute(self._stage_sql)
        await copy(connection, "pg_temp", self._stage, (_CTID, *sent, *BOOKKEEPING), packed)
        status: str = await connection.execute(self._update_sql(sent))
        return status == f"UPDATE {len(rows)}"

    def _update_sql(self, sent: Sequence[str]) -> str:
        kept = (*self._projection.key, OWNER)
        updates = [f"{column} = s.{column}" for column in (*sent, *BOOKKEEPING) if column not in kept]
        same = " AND ".join(f"t.{column} = s.{column}" for column in self._projection.key)
        return (
            f"UPDATE public.{self._table} AS t SET {', '.join(updates)}, {keeping_owner('s')} "
            f'FROM pg_temp.{self._stage} AS s WHERE t.ctid = s."{_CTID}" AND {same} AND {is_newer("s")}'
        )


def _place(row: Placed) -> Any:
    """Return what puts rows into the order of the table: one in which nobody deadlocks, and each page is met once."""
    return row[2].ctid
