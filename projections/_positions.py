"""Where a consumer stands: claimed with a rising epoch, moved only together with what it applied."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from sitelog.projections._database import transient
from sitelog.projections._log_partitions import WHY
from sitelog.projections._projection import Projection
from sitelog.projections._read_models import names, refuse_incomplete
from sitelog.streams._batch import Place, Position
from sitelog.streams.errors import Halt, Retry, reason_of
from sitelog.streams.topics import EXIT_TOPICS

CLAIM: Final = """
INSERT INTO sitelog.consumer_position AS o
    (consumer, log_partition, next_offset, log_seq, epoch, generation, owner, read_models, updated_at)
SELECT $1, log_partition, 0, 0, 1, $4, $5, $7, now()
FROM sitelog.log_partition
WHERE topic = $2 AND partition = $3
ON CONFLICT (consumer, log_partition) DO UPDATE
SET epoch = o.epoch + 1, generation = $4, owner = $5, read_models = $7, updated_at = now()
WHERE (o.generation <= $4 OR $6) AND NOT EXISTS (
    SELECT
    FROM unnest($7::text[]) AS m(read_model)
    LEFT JOIN sitelog.read_model AS b ON b.read_model = m.read_model AND b.log_partition = o.log_partition
    WHERE m.read_model <> ALL (o.read_models) AND o.log_seq <> coalesce(b.log_seq, 0)
)
RETURNING next_offset, epoch, anchor
"""

KNOWN_PARTITION: Final = "SELECT log_partition FROM sitelog.log_partition WHERE topic = $1 AND partition = $2"

LIMIT_LOCK: Final = "SELECT set_config('lock_timeout', $1, TRUE)"

# Postgres's own timeouts don't reach a COPY that waits for its client (they are looked at when the next bytes come), so
# a worker that was frozen or cut off in the middle of one would keep its locks until it thaws. Only who waits for a
# lock looks here, and only sessions end that hold one on positions and have been silent for longer than they may be.
END_SILENT: Final = """
SELECT count(*) FILTER (WHERE pg_terminate_backend(pid))
FROM pg_stat_activity AS a
WHERE datname = current_database()
    AND usename = current_user
    AND state = 'active'
    AND wait_event = 'ClientRead'
    AND clock_timestamp() - query_start
        > nullif(current_setting('idle_in_transaction_session_timeout'), '0')::interval
    AND EXISTS (
        SELECT
        FROM pg_locks AS l
        WHERE l.pid = a.pid AND l.relation = 'sitelog.consumer_position'::regclass AND l.mode <> 'AccessShareLock'
    )
"""

CLAIM_LOCK_SECONDS_MAX: Final = 2
"""A transaction of a worker's takes milliseconds; a claim that has to wait longer is tried again."""

# Whoever locks several does so in this order, so that nobody waits for one who waits for them.
LOCK: Final = """
SELECT p.topic, p.partition, log_partition, o.next_offset, o.log_seq, o.epoch, o.anchor, o.parked_entities,
    o.last_event_time
FROM sitelog.consumer_position AS o
JOIN sitelog.log_partition AS p USING (log_partition)
WHERE o.consumer = $1 AND (p.topic, p.partition) IN (SELECT * FROM unnest($2::text[], $3::int[]))
ORDER BY log_partition
FOR UPDATE OF o
"""


def moving(condition: str = "") -> str:
    """Return the part of a statement that moves positions and tells those who listen, if it comes to a commit.

    Its parameters are $1 to $8; nothing is moved where `condition`, which goes on with AND, isn't met.
    """
    return f"""moved AS (
    UPDATE sitelog.consumer_position AS o
    SET next_offset = m.next_offset, log_seq = m.log_seq, anchor = m.anchor, parked_entities = m.parked_entities,
        last_event_time = m.last_event_time, updated_at = now()
    FROM unnest($2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::timestamptz[])
        AS m(log_partition, epoch, next_offset, log_seq, anchor, parked_entities, last_event_time)
    WHERE o.consumer = $1 AND o.log_partition = m.log_partition AND o.epoch = m.epoch {condition}
    RETURNING o.*
)
SELECT updated_at, pg_notify('sitelog_position', json_build_object('consumer', consumer,
    'log_partition', log_partition, 'next_offset', next_offset, 'log_seq', log_seq)::text)
FROM moved
"""  # noqa: S608 - literals only


MOVE: Final = f"WITH {moving()}"


@dataclass(slots=True)
class Locked:
    """A position as a transaction has locked it, or left it; `updated_at` is known once it was moved."""

    log_partition: int
    next_offset: int
    log_seq: int
    epoch: int
    anchor: int | None
    parked_entities: int
    last_event_time: datetime | None
    updated_at: datetime | None = None


class PostgresPositions:
    """Claims positions for one consumer. `owner` names this process for people who look.

    `projections` are the read models that it keeps: each must have all of the log up to the position.
    """

    def __init__(
        self, pool: asyncpg.Pool, consumer: str, owner: str, projections: Sequence[Projection[Any]] = ()
    ) -> None:
        self._pool = pool
        self._consumer = consumer
        self._owner = owner
        self._projections = projections

    async def claim(self, topic: str, partition: int, generation: int, *, force: bool) -> Position | None:
        """Raise the epoch and return the position, or None while a newer Kafka generation holds the partition.

        Raises Retry while Postgres is away or the row is locked, and Halt for a partition that the database
        was not told of and for a read model without a part of the log. Whoever holds the lock and has been silent
        for too long loses it, so that a later try succeeds.
        """
        try:
            async with self._pool.acquire() as connection:
                kept = names(self._projections)
                claim = (self._consumer, topic, partition, generation, self._owner, force, kept)
                row = await _claim(connection, claim)
                known = row is not None or await connection.fetchval(KNOWN_PARTITION, topic, partition) is not None
                if row is None:
                    await refuse_incomplete(connection, self._projections)
        except Exception as error:
            if transient(error):
                raise Retry(f"Postgres: {reason_of(error)}") from error
            raise
        if not known:
            raise Halt(
                f"{topic}[{partition}] is not in sitelog.log_partition: the topic has more partitions than the "
                f"database was set up for. {WHY}. `sitelog topics check` says what was expected and found",
                EXIT_TOPICS,
            )
        return None if row is None else Position(row["next_offset"], row["epoch"], row["anchor"])


async def _claim(connection: Any, claim: tuple[Any, ...]) -> Any:
    try:
        async with connection.transaction():
            await connection.execute(LIMIT_LOCK, f"{CLAIM_LOCK_SECONDS_MAX}s")
            return await connection.fetchrow(CLAIM, *claim)
    except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError):
        await connection.execute(END_SILENT)
        raise


async def lock(connection: Any, consumer: str, topic: str, partition: int) -> Locked | None:
    """Lock and return the position, None where nobody has claimed the partition yet."""
    place = (topic, partition)
    return (await lock_all(connection, consumer, [place])).get(place)


async def lock_all(connection: Any, consumer: str, places: Iterable[Place]) -> dict[Place, Locked]:
    """Lock and return the positions; those that nobody has claimed yet are missing."""
    topics, partitions = zip(*places, strict=True)
    rows = await connection.fetch(LOCK, consumer, topics, partitions)
    return {(topic, partition): Locked(*position) for topic, partition, *position in rows}


async def move(
    connection: Any, consumer: str, positions: Sequence[Locked], sql: str = MOVE, arguments: Iterable[Any] = ()
) -> bool:
    """Write positions back, and tell those who listen on `sitelog_position`; False where the statement moved none.

    `sql` is one that ends with `moving`, and `arguments` are what it has besides.
    """
    moved = [
        (p.log_partition, p.epoch, p.next_offset, p.log_seq, p.anchor, p.parked_entities, p.last_event_time)
        for p in positions
    ]
    rows = await connection.fetch(sql, consumer, *zip(*moved, strict=True), *arguments)
    if not rows:
        return False
    for position in positions:
        position.updated_at = rows[0]["updated_at"]  # one statement, one time
    return True
