"""Moves a position by hand: what lies between is skipped or read again, on the record."""

from dataclasses import dataclass
from typing import Any, Final

from sitelog.projections import _positions
from sitelog.streams.errors import ConfigError

ENSURE: Final = """
INSERT INTO sitelog.consumer_position
    (consumer, log_partition, next_offset, log_seq, epoch, generation, owner, updated_at)
SELECT $1, log_partition, 0, 0, 0, 0, $4, now()
FROM sitelog.log_partition
WHERE topic = $2 AND partition = $3
ON CONFLICT (consumer, log_partition) DO NOTHING
RETURNING 1
"""

# Without an anchor the next claim takes the record before the position for whatever it is.
SET: Final = """
UPDATE sitelog.consumer_position
SET next_offset = $3, anchor = NULL, epoch = epoch + 1, updated_at = now()
WHERE consumer = $1 AND log_partition = $2
"""

RECORD: Final = """
INSERT INTO sitelog.position_change (consumer, log_partition, from_offset, to_offset, changed_at, changed_by, reason)
VALUES ($1, $2, $3, $4, now(), $5, $6)
"""


@dataclass(frozen=True, slots=True)
class Reposition:
    """What a person decided: where a consumer goes on in a partition, and why."""

    consumer: str
    topic: str
    partition: int
    offset: int
    by: str
    reason: str


async def reposition(connection: Any, decided: Reposition) -> int | None:
    """Set a position, and return the one before; None where nobody had claimed the partition yet.

    The epoch rises: a worker that holds the partition is fenced before its next batch. Needs the owner's rights.
    Raises ConfigError for a partition that the database was not told of.
    """
    where = (decided.consumer, decided.topic, decided.partition)
    async with connection.transaction():
        is_new = await connection.fetchval(ENSURE, *where, decided.by) is not None
        position = await _positions.lock(connection, *where)
        if position is None:
            raise ConfigError(
                f"{decided.topic}[{decided.partition}] is not in sitelog.log_partition: check kafka_config.topics, "
                "then run `sitelog db init`"
            )
        before = None if is_new else position.next_offset
        log_partition = position.log_partition
        await connection.execute(SET, decided.consumer, log_partition, decided.offset)
        change = (before, decided.offset, decided.by, decided.reason)
        await connection.execute(RECORD, decided.consumer, log_partition, *change)
    return before
