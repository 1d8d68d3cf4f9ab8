"""What Sitelog writes, by hand: log, read models and position in Sitelog's own tables, in one transaction.

Left out, and so cheaper than Sitelog: the version of each field and the search for conflicts, events sent twice or
out of order, parking, claims against a second worker, schema evolution, metrics and health.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from sitelog.projections._log_rows import COLUMNS as LOG_COLUMNS
from tests.benchmarks.latest import COLUMNS, HEADER_BYTES, Latest, Reader

TOPIC: Final = "customer-sites-events"

SETUP_SQL: Final = f"""
INSERT INTO sitelog.consumer_position
    (consumer, log_partition, next_offset, log_seq, epoch, generation, owner, updated_at)
SELECT 'loop', log_partition, 0, 0, 1, 0, 'loop', now() FROM sitelog.log_partition WHERE topic = '{TOPIC}'
"""  # noqa: S608 - a literal of this file
POSITIONS_SQL: Final = """
SELECT partition, log_partition, next_offset, log_seq
FROM sitelog.consumer_position
JOIN sitelog.log_partition USING (log_partition)
WHERE consumer = 'loop'
"""
MOVE_SQL: Final = """
UPDATE sitelog.consumer_position
SET next_offset = $2, log_seq = $3, last_event_time = $4, updated_at = now()
WHERE consumer = 'loop' AND log_partition = $1
"""
ASSIGN_SQL: Final = """
INSERT INTO public.territory_assignments_v1
    (site_id, territory_id, valid_from, version, updated_at, log_partition, log_seq)
SELECT site_id, territory_id, valid_from, 1, updated_at, log_partition, log_seq
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::smallint[], $6::bigint[])
    AS new(site_id, territory_id, valid_from, updated_at, log_partition, log_seq)
"""

_OWN: Final = {
    "created_at": "timestamptz",
    "updated_at": "timestamptz",
    "log_partition": "smallint",
    "log_seq": "bigint",
}
_ALL: Final = {**COLUMNS, **_OWN}
_MERGED: Final = [name for name in COLUMNS if name not in {"site_id", "version"}]
UPSERT_SQL: Final = f"""
INSERT INTO public.customer_sites_v1 AS t ({", ".join(_ALL)})
SELECT * FROM unnest({", ".join(f"${number}::{kind}[]" for number, kind in enumerate(_ALL.values(), 1))})
ON CONFLICT (site_id) DO UPDATE
SET {", ".join(f"{name} = coalesce(excluded.{name}, t.{name})" for name in _MERGED)},
    version = t.version + excluded.version,
    updated_at = excluded.updated_at,
    log_partition = excluded.log_partition,
    log_seq = excluded.log_seq
"""  # noqa: S608 - literals of this file and latest.py


@dataclass
class Place:
    """Where one partition stands."""

    log_partition: int
    log_seq: int


@dataclass
class Batch:
    """Everything that one transaction writes."""

    latest: Latest = field(default_factory=Latest)
    log: list[tuple[Any, ...]] = field(default_factory=list)
    own: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    assignments: list[tuple[Any, ...]] = field(default_factory=list)
    moves: list[tuple[Any, ...]] = field(default_factory=list)


class SameWrites:
    """Log, read models and position."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._reader = Reader()
        self._places: dict[int, Place] = {}

    async def positions(self) -> Mapping[int, int]:
        rows = await self._connection.fetch(POSITIONS_SQL)
        self._places = {row["partition"]: Place(row["log_partition"], row["log_seq"]) for row in rows}
        return {row["partition"]: row["next_offset"] for row in rows}

    async def write(self, fetched: Mapping[int, Sequence[Any]]) -> None:
        batch = Batch()
        now = datetime.now(UTC)
        for partition, records in fetched.items():
            place = self._places[partition]
            for record in records:
                place.log_seq += 1
                at = self._take(batch, record, place, now)
            batch.moves.append((place.log_partition, records[-1].offset + 1, place.log_seq, at))
        connection = self._connection
        await connection.copy_records_to_table(
            "event_log", schema_name="sitelog", columns=LOG_COLUMNS, records=batch.log
        )
        own = zip(*(batch.own[site_id] for site_id in batch.latest.site_ids()), strict=True)
        await connection.execute(UPSERT_SQL, *batch.latest.arrays(), *own)
        if batch.assignments:
            await connection.execute(ASSIGN_SQL, *zip(*batch.assignments, strict=True))
        await connection.executemany(MOVE_SQL, batch.moves)

    def _take(self, batch: Batch, record: Any, place: Place, now: datetime) -> datetime:
        """Take one record into the batch, and return the event's time."""
        value = record.value
        event_type, event = self._reader.read(value)
        batch.latest.take(event_type, event)
        site_id, at = event["site_id"], event["event_timestamp"]
        appended = datetime.fromtimestamp(record.timestamp / 1000, UTC)
        batch.own[site_id] = (at, appended, place.log_partition, place.log_seq)
        if event_type == "site_created":
            territory_id = event["site_data"]["territory_id"]
            batch.assignments.append((site_id, territory_id, at, appended, place.log_partition, place.log_seq))
        batch.log.append(
            (
                place.log_partition,
                place.log_seq,
                record.offset,
                event["event_id"],
                event_type,
                site_id,
                at,
                appended,
                now,
                int.from_bytes(value[2:HEADER_BYTES], "little", signed=True),
                None,
                value[HEADER_BYTES:],
            )
        )
        return at
