"""Loads what is put aside of stopped entities and may go on: in a transaction no more than in any other."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sitelog.projections._intake import Aside
from sitelog.projections._items import Item, reread
from sitelog.projections._parked import Limits, Shelf
from sitelog.projections._registry import Plan
from sitelog.streams.codec import Codec
from sitelog.streams.errors import Park, SchemasAway
from sitelog.streams.events import EVENT_TYPES


class TooMuchAside(Exception):  # noqa: N818 - no error: the records only need to come in smaller batches
    """These records would set more free than one transaction takes."""


@dataclass(frozen=True, slots=True)
class Trial:
    """How to find what Postgres refuses where a record sets others free: so many at once, the first with a problem."""

    records: int
    problem: Park | None = None


class Loader:
    """Loads for records of partitions, or for one entity; at most `limits` at once."""

    def __init__(self, plan: Plan, codec: Codec, limits: Limits) -> None:
        self._plan = plan
        self._codec = codec
        self.limits = limits

    async def for_records(
        self, shelf: Shelf, topic: str, items: Sequence[Item], *, alone: bool, trial: Trial | None = None
    ) -> Aside:
        """Look which entities of these records are stopped, and load what may be set free.

        Raises TooMuchAside where that is too much, unless it is one record, `alone` in its transaction. Raises
        SchemasAway where a schema registry has to be asked first, which is nothing to do while rows are locked.
        """
        stopped = await shelf.stopped({item.entity_id for item in items})
        created = {item.entity_id for item in items if item.event is not None and self._plan.creates(type(item.event))}
        free = {entity for entity, by in stopped.items() if by == "behind" or (by == "waiting" and entity in created)}
        first, more = await shelf.open(free, self._limits_of(trial))
        if more and not (alone and len(items) == 1):
            raise TooMuchAside
        self._expect_known([item.value for item in first])
        aside = Aside(stopped, self._by_entity(topic, first))
        if trial is not None and first:
            more = True  # the record itself comes by itself
            if trial.problem is not None:
                first[0].event, first[0].problem = None, trial.problem
        aside.last = first[-1] if more else None
        return aside

    async def of_entity(self, shelf: Shelf, topic: str, entity_id: str) -> Aside:
        """Load what is put aside of an entity, for which the codec is prepared."""
        first, more = await shelf.open({entity_id} - {""}, self.limits)
        return Aside({}, self._by_entity(topic, first), first[-1] if more else None)

    async def creations(self, shelf: Shelf, topic: str, after: Item) -> list[Item]:
        """Load creations of the same entity from behind this event; raises SchemasAway as `for_records`."""
        frames = await shelf.frames(after.entity_id)
        self._expect_known(frames)
        creating = [frame for frame in frames if self._creates(frame)]
        items, _ = await shelf.open({after.entity_id}, self.limits, frames=creating, after=after)
        return [reread(item, topic, self._codec) for item in items]

    def _expect_known(self, values: Iterable[bytes | None]) -> None:
        missing = self._codec.missing_schemas(values)
        if missing:
            raise SchemasAway("schema registry: not asked yet", frozenset(missing))

    def _limits_of(self, trial: Trial | None) -> Limits:
        return self.limits if trial is None else replace(self.limits, records=min(trial.records, self.limits.records))

    def _by_entity(self, topic: str, items: Sequence[Item]) -> dict[str, list[Item]]:
        entities: dict[str, list[Item]] = {}
        for item in items:
            entities.setdefault(item.entity_id, []).append(reread(item, topic, self._codec))
        return entities

    def _creates(self, frame: bytes) -> bool:
        event_type = self._codec.event_type(frame)
        return event_type is not None and self._plan.creates(EVENT_TYPES[event_type])
