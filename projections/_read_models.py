"""Which read models have all of the log: no worker goes on with one that lacks a part of it.

A position names the read models that whoever claimed it keeps. One that is not among them is complete only where a
replay has built it up to the very log seq of the position: what comes after that, its own worker folds.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sitelog.projections._projection import Projection
from sitelog.streams.errors import Halt

PROJECTOR: Final = "projector"
"""The consumer that writes the log and the read models."""

INCOMPLETE: Final = """
SELECT m.read_model, sum(o.log_seq - coalesce(b.log_seq, 0)) AS events
FROM unnest($2::text[]) AS m(read_model)
CROSS JOIN sitelog.consumer_position AS o
LEFT JOIN sitelog.read_model AS b ON b.read_model = m.read_model AND b.log_partition = o.log_partition
WHERE o.consumer = $1 AND m.read_model <> ALL (o.read_models) AND o.log_seq <> coalesce(b.log_seq, 0)
GROUP BY m.read_model
ORDER BY m.read_model
"""

BUILT: Final = """
INSERT INTO sitelog.read_model AS b (read_model, log_partition, log_seq, built_at)
SELECT m.read_model, l.log_partition, l.log_seq, now()
FROM unnest($1::text[]) AS m(read_model)
CROSS JOIN unnest($2::smallint[], $3::bigint[]) AS l(log_partition, log_seq)
ON CONFLICT (read_model, log_partition) DO UPDATE SET log_seq = excluded.log_seq, built_at = excluded.built_at
"""


def names(projections: Iterable[Projection[Any]]) -> list[str]:
    """Return what read models are called in positions: their tables' names, so that another version is another one."""
    return [projection.table for projection in projections]


async def refuse_incomplete(connection: Any, projections: Sequence[Projection[Any]]) -> None:
    """Raise Halt unless every read model has all of the log, or is kept by whoever holds the position."""
    by_table = {projection.table: projection.name for projection in projections}
    rows = await connection.fetch(INCOMPLETE, PROJECTOR, list(by_table))
    if rows:
        lacking = ", ".join(f"{row['read_model']} lacks {row['events']} events" for row in rows)
        replay = " ".join(by_table[row["read_model"]] for row in rows)
        raise Halt(
            f"read models without a part of the log: {lacking}. They are new to this database, or a worker that "
            f"doesn't know them has run since they were built. End such workers, then run `sitelog replay {replay}`"
        )


async def built(connection: Any, projections: Iterable[Projection[Any]], log_seqs: dict[int, int]) -> None:
    """Record that read models have the log up to these log seqs, by log partition."""
    await connection.execute(BUILT, names(projections), list(log_seqs), list(log_seqs.values()))
