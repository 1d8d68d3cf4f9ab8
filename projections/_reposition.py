"""Moves a position by hand: what lies between is skipped or read again, on the record."""

from dataclasses import dataclass
from typing import Any, Final

from sitelog.projections import _positions
from sitelog.projections._read_models import PROJECTOR
from sitelog.streams.errors import ConfigError, Halt

CONSUMERS: Final = "SELECT DISTINCT consumer FROM sitelog.consumer_position"

# A worker's progress, and a claim of one, aren't on the record: only what a person has done is.
SEEN: Final = """
SELECT o.next_offset, (
    SELECT max(change_id)
    FROM sitelog.position_change
    WHERE consumer = $1 AND log_partition = p.log_partition
)
FROM sitelog.log_partition AS p
LEFT JOIN sitelog.consumer_position AS o ON o.log_partition = p.log_partition AND o.consumer = $1
WHERE p.topic = $2 AND p.partition = $3
"""

CHANGE: Final = "SELECT changed_by, reason FROM sitelog.position_change WHERE change_id = $1"

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


@dataclass(frozen=True, slots=True)
class Seen:
    """What a person decides by: the position, None where nobody has claimed it, and the last change made by hand."""

    next_offset: int | None
    last_change: int | None


async def see(connection: Any, consumer: str, topic: str, partition: int) -> Seen:
    """Return where a consumer stands. Raises ConfigError for one that nobody knows."""
    await _refuse_unknown(connection, consumer)
    row = await connection.fetchrow(SEEN, consumer, topic, partition)
    return Seen(None, None) if row is None else Seen(*row)


async def reposition(connection: Any, decided: Reposition, seen: Seen | None = None) -> int | None:
    """Set a position, and return the one before; None where nobody had claimed the partition yet.

    The epoch rises: a worker that holds the partition is fenced before its next batch. Needs the owner's rights.
    Raises ConfigError for a consumer that nobody knows and a partition that the database was not told of, and Halt
    where somebody else has moved the position since it was `seen`.
    """
    where = (decided.consumer, decided.topic, decided.partition)
    async with connection.transaction():
        await _refuse_unknown(connection, decided.consumer)
        is_new = await connection.fetchval(ENSURE, *where, decided.by) is not None
        position = await _positions.lock(connection, *where)
        if position is None:
            raise ConfigError(
                f"{decided.topic}[{decided.partition}] is not in sitelog.log_partition: check kafka_config.topics, "
                "then run `sitelog db init`"
            )
        before = None if is_new else position.next_offset
        if seen is not None:
            await _refuse_moved(connection, decided, seen)
        log_partition = position.log_partition
        await connection.execute(SET, decided.consumer, log_partition, decided.offset)
        change = (before, decided.offset, decided.by, decided.reason)
        await connection.execute(RECORD, decided.consumer, log_partition, *change)
    return before


async def _refuse_unknown(connection: Any, consumer: str) -> None:
    known = {PROJECTOR, *(row[0] for row in await connection.fetch(CONSUMERS))}
    if consumer not in known:
        raise ConfigError(f"expected a consumer that has a position, of {', '.join(sorted(known))}, got {consumer}")


async def _refuse_moved(connection: Any, decided: Reposition, seen: Seen) -> None:
    now = await see(connection, decided.consumer, decided.topic, decided.partition)
    if now.last_change != seen.last_change:
        by, reason = await connection.fetchrow(CHANGE, now.last_change)
        before = "never claimed" if seen.next_offset is None else f"{seen.next_offset:,}"
        raise Halt(
            f"{decided.consumer} in {decided.topic}[{decided.partition}] has been moved meanwhile, from {before} to "
            f"{now.next_offset:,} by {by} ({reason}): nothing was changed, look again"
        )
