"""The record of conflicts: what an update met that its producer didn't know of, and what was decided."""

from collections.abc import Sequence
from typing import Any, Final

from sitelog.projections._insert import Filled, Insert, columns_of
from sitelog.projections._intake import ConflictRow
from sitelog.projections._merge import Policy

COLUMNS: Final = (
    "log_partition",
    "log_seq",
    "projection",
    "entity_id",
    "event_id",
    "field",
    "reason",
    "expected",
    "found",
    "resolution",
    "detected_at",
)

INSERT: Final = Insert(
    "sitelog.conflict",
    COLUMNS,
    ("smallint", "bigint", "text", "text", "uuid", "text", "text", "text", "text", "text", "timestamptz"),
)

DECIDED: Final = """
SELECT DISTINCT event_id::text, resolution
FROM sitelog.conflict
WHERE log_partition = $1 AND log_seq > $2 AND log_seq <= $3 AND reason <> 'deleted'
"""


async def record(connection: Any, rows: Sequence[ConflictRow]) -> None:
    """Record conflicts, rows in the order of COLUMNS."""
    if rows:
        await connection.copy_records_to_table("conflict", schema_name="sitelog", columns=COLUMNS, records=rows)


def filled(rows: Sequence[ConflictRow]) -> Filled:
    """Return conflicts as an insert, for few of them."""
    return INSERT, columns_of(rows)


async def decided(connection: Any, log_partition: int, after: int, until: int) -> dict[str, Policy]:
    """Return what was decided on the events after the log seq `after` and up to `until`, by event id."""
    return {row["event_id"]: row["resolution"] for row in await connection.fetch(DECIDED, log_partition, after, until)}
