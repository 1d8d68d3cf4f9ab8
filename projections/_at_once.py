"""One statement that writes what small batches come to, if their positions are as they were left.

A transaction that locks, loads, writes and moves takes eight exchanges with Postgres: with few events in it that is
all it costs. Here nothing is locked while rows are loaded and folded; then one statement locks the positions, looks
whether anybody has touched them since, and if so writes nothing.

That is safe as long as whoever changes a row of a read model changes its partition's position as well.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from sitelog.projections._insert import Filled, Insert
from sitelog.projections._positions import Locked, move, moving

# Who claims a partition, sets its position or applies what was put aside there changes one of these, and so does who
# puts other tables in place. $1 to $8 are those of `moving`.
_UNCHANGED: Final = """
WITH held AS (
    SELECT log_partition
    FROM sitelog.consumer_position AS o
    JOIN unnest($2::smallint[], $3::bigint[], $9::bigint[], $10::bigint[], $11::timestamptz[])
        AS l(log_partition, epoch, next_offset, log_seq, updated_at) USING (log_partition)
    WHERE o.consumer = $1
        AND (o.epoch, o.next_offset, o.log_seq, o.updated_at) = (l.epoch, l.next_offset, l.log_seq, l.updated_at)
    ORDER BY log_partition
    FOR UPDATE OF o
), unchanged AS MATERIALIZED (
    SELECT count(*) = cardinality($2) AS yes FROM held
), """

_FIRST_OF_ROWS: Final = 12
_YES: Final = "(SELECT yes FROM unchanged)"


async def write(
    connection: Any, consumer: str, left: Sequence[Locked], moved: Sequence[Locked], inserts: Sequence[Filled]
) -> bool:
    """Write rows and move positions, from where they were `left`; False, and nothing written, if they aren't there."""
    filled = [insert for insert in inserts if insert[1]]
    before = zip(*((p.next_offset, p.log_seq, p.updated_at) for p in left), strict=True)
    rows = (column for _, columns in filled for column in columns)
    return await move(connection, consumer, moved, _statement(tuple(insert for insert, _ in filled)), (*before, *rows))


@lru_cache(maxsize=1_024)
def _statement(inserts: tuple[Insert, ...]) -> str:
    first = _FIRST_OF_ROWS
    parts: list[str] = []
    for number, insert in enumerate(inserts):
        parts.append(f"rows_{number} AS ({insert.from_arrays(first, f'WHERE {_YES}')}), ")
        first += len(insert.types)
    return f"{_UNCHANGED}{''.join(parts)}{moving(f'AND {_YES}')}"
