"""Which read models there are: every file here without a leading underscore is one, loudly checked."""

import importlib
import pkgutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sitelog.projections
from sitelog.projections._projection import Handler, Projection
from sitelog.streams._event import Event
from sitelog.streams.events import EVENT_TYPES


def load() -> tuple[Projection[Any], ...]:
    """Import every read model. Raises what the broken file raises, and ValueError for one misnamed.

    The file, the object in it and its `name` are the same word.
    """
    names = sorted(m.name for m in pkgutil.iter_modules(sitelog.projections.__path__) if not m.name.startswith("_"))
    return tuple(_load_one(name) for name in names)


def _load_one(name: str) -> Projection[Any]:
    module = importlib.import_module(f"sitelog.projections.{name}")
    projection = getattr(module, name, None)
    if not isinstance(projection, Projection) or projection.name != name:
        raise ValueError(f"projections/{name}.py: expected `{name} = Projection(name={name!r}, …)`, got {projection!r}")
    return projection


@dataclass(frozen=True, slots=True)
class Plan:
    """What each event type does, the handler that decides on conflicts first."""

    projections: tuple[Projection[Any], ...]
    handlers: dict[type[Event], tuple[Handler, ...]]

    def creates(self, event: type[Event]) -> bool:
        """Tell whether events of this type create a row that others may wait for."""
        return any(handler.kind == "creates" for handler in self.handlers[event])

    def named(self, names: Collection[str]) -> "Plan":
        """Return the plan of these read models, and of those that decide on conflicts of events that these take.

        Without the latter, an event that was refused when it was folded first would be taken by a later fold.
        """
        chosen = {projection for projection in self.projections if projection.name in names}
        while True:
            owners = {
                handlers[0].projection
                for handlers in self.handlers.values()
                if handlers and handlers[0].owns and any(handler.projection in chosen for handler in handlers)
            }
            if owners <= chosen:
                return plan(projection for projection in self.projections if projection in chosen)
            chosen |= owners


def plan(projections: Iterable[Projection[Any]]) -> Plan:
    """Bring the read models' handlers together, by event type.

    Raises ValueError where two read models have one name, or both decide on one event type's conflicts.
    """
    projections = tuple(projections)
    names = [projection.name for projection in projections]
    if len(set(names)) != len(names):
        raise ValueError(f"read models need different names, got {sorted(names)}")
    return Plan(projections, {event: _ordered(event, projections) for event in EVENT_TYPES.values()})


def _ordered(event: type[Event], projections: Sequence[Projection[Any]]) -> tuple[Handler, ...]:
    handlers = [p.handlers[event] for p in projections if event in p.handlers]
    owners = [handler.projection.name for handler in handlers if handler.owns]
    if len(owners) > 1:
        raise ValueError(f"{event.event_type}: only one read model can decide on its conflicts, got {owners}")
    return tuple(sorted(handlers, key=lambda handler: not handler.owns))
