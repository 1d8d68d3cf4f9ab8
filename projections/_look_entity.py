"""Everything that is known of one site or territory: its rows, its events, its conflicts, what of it is parked."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from sitelog.projections._look_log import Entry, Stretch, Wanted, stretches, tail
from sitelog.projections._look_parked import ParkedEvent, count_of_entity, of_entity
from sitelog.projections._projection import Projection
from sitelog.projections._registry import load
from sitelog.streams.events import EVENT_TYPES

PARKED_MAX: Final = 1_000
SHOWN: Final = ("version", "updated_at")

COUNT: Final = "SELECT count(*) FROM sitelog.event_log WHERE entity_id = $1 AND log_partition = ANY($2)"

CONFLICTS: Final = """
SELECT
    p.topic,
    p.partition,
    c.log_seq,
    c.projection,
    c.field,
    c.reason,
    c.expected,
    c.found,
    c.resolution,
    c.detected_at
FROM sitelog.conflict AS c
JOIN sitelog.log_partition AS p USING (log_partition)
WHERE c.entity_id = $1 AND p.topic = ANY($2)
ORDER BY c.log_partition, c.log_seq, c.projection, c.field
"""

COLUMNS: Final = """
SELECT attname::text
FROM pg_attribute
WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
"""

OWNER: Final = """
SELECT territory_id, valid_from, valid_until, reason, approved_by
FROM public.territory_assignments
WHERE site_id = $1 AND valid_from <= $2 AND (valid_until IS NULL OR valid_until > $2)
"""

ASSIGNED: Final = """
SELECT count(*)
FROM public.territory_assignments
WHERE territory_id = $1 AND valid_from <= now() AND (valid_until IS NULL OR valid_until > now())
"""


@dataclass(frozen=True, slots=True)
class Found:
    """One field of one event that met another value than its producer had seen."""

    topic: str
    partition: int
    log_seq: int
    projection: str
    field: str
    reason: str
    expected: str | None
    found: str | None
    resolution: str
    detected_at: datetime


@dataclass(frozen=True, slots=True)
class Owner:
    """A territory that a site belongs to from `valid_from` until before `valid_until`; None is until now."""

    territory_id: str
    valid_from: datetime
    valid_until: datetime | None
    reason: str | None
    approved_by: str | None


@dataclass(frozen=True, slots=True)
class Story:
    """One entity. `rows` are by read model, JSON columns parsed; `entries` the newest of all its `events`.

    `parked` are the first of all its `parked_events`.
    """

    entity_id: str
    rows: dict[str, list[dict[str, Any]]]
    events: int
    entries: list[Entry]
    conflicts: list[Found]
    parked_events: int
    parked: list[ParkedEvent]

    @property
    def known(self) -> bool:
        """Whether there is anything at all."""
        return bool(self.entries or self.parked or any(self.rows.values()))


async def story(connection: Any, entity_type: str, entity_id: str, entries_max: int) -> Story:
    """Return what there is of a site or territory, with its newest `entries_max` events, as of one moment."""
    topics = topics_of(entity_type)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        wanted = Wanted(entity_id=entity_id)
        parts = [part for part in await stretches(connection, wanted) if part.topic in topics]
        return Story(
            entity_id,
            rows={one.name: await _rows(connection, one, entity_id) for one in read_models(entity_type)},
            events=await _count(connection, parts, entity_id),
            entries=[entry async for entry in tail(connection, parts, wanted, entries_max)],
            conflicts=[Found(*row) for row in await connection.fetch(CONFLICTS, entity_id, topics)],
            parked_events=await count_of_entity(connection, entity_id, topics),
            parked=await of_entity(connection, entity_id, topics, PARKED_MAX),
        )


def topics_of(entity_type: str) -> list[str]:
    """Return the topics that events about such entities travel in."""
    return sorted({event.topic for event in EVENT_TYPES.values() if event.entity_type == entity_type})


def read_models(entity_type: str) -> list[Projection[Any]]:
    """Return the read models whose rows are about such entities; those with a row per entity come first."""
    (key_field,) = {event.key_field for event in EVENT_TYPES.values() if event.entity_type == entity_type}
    about = (projection for projection in load() if projection.key[0] == key_field)
    return sorted(about, key=lambda projection: len(projection.key))


async def owner_at(connection: Any, site_id: str, at: datetime) -> Owner | None:
    """Return the territory that a site belonged to at `at`, None for none."""
    row = await connection.fetchrow(OWNER, site_id, at)
    return None if row is None else Owner(*row)


async def sites_of(connection: Any, territory_id: str) -> int:
    """Return how many sites belong to a territory now."""
    count: int = await connection.fetchval(ASSIGNED, territory_id)
    return count


async def _count(connection: Any, parts: Sequence[Stretch], entity_id: str) -> int:
    count: int = await connection.fetchval(COUNT, entity_id, [part.log_partition for part in parts])
    return count


async def _rows(connection: Any, projection: Projection[Any], entity_id: str) -> list[dict[str, Any]]:
    # While a release is rolled out, the view may show another version, or not be there: what there is, is told.
    found = {column for (column,) in await connection.fetch(COLUMNS, f"public.{projection.name}")}
    if projection.key[0] not in found:
        return []
    # Names come from a read model's file, checked to be identifiers; the value is a parameter.
    columns = ", ".join(column for column in (*projection.columns, *SHOWN) if column in found)
    order = ", ".join(column for column in projection.key if column in found)
    query = f"SELECT {columns} FROM public.{projection.name} WHERE {projection.key[0]} = $1 ORDER BY {order}"  # noqa: S608
    rows = await connection.fetch(query, entity_id)
    documents = {column for column, (kind, _) in projection.columns.items() if kind == "jsonb"}
    return [
        {
            column: orjson.loads(value) if column in documents and value is not None else value
            for column, value in row.items()
        }
        for row in rows
    ]
