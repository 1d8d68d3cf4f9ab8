"""Loads what is put aside of stopped entities and may go on: in a transaction no more than in any other."""

from collections.abc import Iterable, Sequence

from sitelog.projections._intake import Aside
from sitelog.projections._items import Item, reread
from sitelog.projections._parked import Limits, Shelf
from sitelog.projections._registry import Plan
from sitelog.streams.codec import Codec
from sitelog.streams.events import EVENT_TYPES


class TooMuchAside(Exception):  # noqa: N818 - no error: the records only need to come in smaller batches
    """These records would set more free than one transaction takes."""


class Loader:
    """Loads for records of partitions, or for one entity; at most `limits` at once."""

    def __init__(self, plan: Plan, codec: Codec, limits: Limits) -> None:
        self._plan = plan
        self._codec = codec
        self._limits = limits

    async def for_records(self, shelf: Shelf, topic: str, items: Sequence[Item]) -> Aside:
        """Look which entities of these records are stopped, and load what may be set free.

        Raises TooMuchAside where that is too much; for a single record it never is. Raises Retry while a schema
        registry that is needed can't be reached.
        """
        stopped = await shelf.stopped({item.entity_id for item in items})
        created = {item.entity_id for item in items if item.event is not None and self._plan.creates(type(item.event))}
        free = {entity for entity, by in stopped.items() if by == "behind" or (by == "waiting" and entity in created)}
        first, more = await shelf.open(free, self._limits)
        if more and len(items) > 1:
            raise TooMuchAside
        await self._codec.prepare([item.value for item in first])
        aside = Aside(stopped, _by_entity(reread(item, topic, self._codec) for item in first))
        if more:
            (aside.rest_of,) = free
            frames = await shelf.frames(aside.rest_of)
            await self._codec.prepare(frames)
            aside.creations += await self._creations(shelf, topic, first[-1], frames)
        return aside

    async def of_entity(self, shelf: Shelf, topic: str, entity_id: str) -> Aside:
        """Load what is put aside of an entity, for which the codec is prepared."""
        first, more = await shelf.open({entity_id} - {""}, self._limits)
        aside = Aside({}, _by_entity(reread(item, topic, self._codec) for item in first))
        if more:
            aside.rest_of = entity_id
            aside.creations += await self._creations(shelf, topic, first[-1], await shelf.frames(entity_id))
        return aside

    async def _creations(self, shelf: Shelf, topic: str, after: Item, frames: Sequence[bytes]) -> list[Item]:
        """Load the creations among what is further back: what is in front may wait for one of them."""
        creating = [frame for frame in frames if self._creates(frame)]
        items, _ = await shelf.open({after.entity_id}, self._limits, frames=creating, after=after)
        return [reread(item, topic, self._codec) for item in items]

    def _creates(self, frame: bytes) -> bool:
        event_type = self._codec.event_type(frame)
        return event_type is not None and self._plan.creates(EVENT_TYPES[event_type])


def _by_entity(items: Iterable[Item]) -> dict[str, list[Item]]:
    entities: dict[str, list[Item]] = {}
    for item in items:
        entities.setdefault(item.entity_id, []).append(item)
    return entities
