"""Puts parked entities in motion again, and says what became of them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

from sitelog.cli._figures import counted
from sitelog.projections._database import session
from sitelog.projections._identity import identity
from sitelog.projections._install import check
from sitelog.projections._read_models import PROJECTOR, names
from sitelog.projections._registry import load, plan
from sitelog.projections._transaction import Projector
from sitelog.projections._unpark import Moved, Unpark
from sitelog.streams.codec import Codec
from sitelog.streams.registry import SchemaRegistry
from sitelog.streams.settings import Settings


class Bench(NamedTuple):
    """What it takes: a connection as the workers have theirs, and the machinery."""

    connection: Any
    unpark: Unpark


@asynccontextmanager
async def unparking(settings: Settings, command: str) -> AsyncIterator[Bench]:
    """Open everything for a block. Raises as a worker does that can't start: here, too, conflicts are decided."""
    planned = plan(load())
    async with AsyncExitStack() as stack:
        configured = settings.kafka_config.schema_registry
        registry = None if configured is None else await stack.enter_async_context(SchemaRegistry(configured))
        connection = await stack.enter_async_context(
            session(settings.database_config.primary, application=f"sitelog {command}", worker=settings.worker)
        )
        await check(connection, planned.projections)
        await _refuse_strangers(settings, await identity(connection))
        codec = Codec(registry)
        projector = Projector.configured(planned, codec, PROJECTOR, settings.worker)
        yield Bench(connection, Unpark(projector, codec, PROJECTOR, names(planned.projections)))


async def _refuse_strangers(settings: Settings, database: str) -> None:
    from sitelog.streams._group import Purpose, refuse_strangers  # noqa: PLC0415 - a list shouldn't wait for it
    from sitelog.streams.topics import admin_client  # noqa: PLC0415

    purpose = Purpose(PROJECTOR, settings.worker.conflict_policy, database)
    async with admin_client(settings) as admin:
        await refuse_strangers(admin, purpose, settings.worker.session_timeout_seconds)


def plain(moved: Moved) -> dict[str, Any]:
    """Return what became of an entity as JSON has it; the last four are null where it moves."""
    culprit = moved.culprit
    return {
        "entity_id": moved.entity.entity_id,
        "topic": moved.entity.topic,
        "partition": moved.entity.partition,
        "applied": moved.applied,
        "repeated": moved.repeated,
        "left": moved.left,
        "parked_id": None if culprit is None else culprit.item.parked_id,
        "status": None if culprit is None else culprit.status,
        "reason": None if culprit is None else culprit.reason,
        "message": None if culprit is None else culprit.message,
    }


def line(moved: Moved) -> str:
    """Return what became of an entity in one line."""
    entity = moved.entity
    where = f"{entity.entity_id or 'without an id'} in {entity.topic}[{entity.partition}]"
    done = f"{counted(moved.applied, 'event')} applied" + (
        f", {moved.repeated:,} repeated ones left out" if moved.repeated else ""
    )
    if moved.culprit is None:
        return f"{where}: {done}; it moves again"
    culprit = moved.culprit
    behind = f", {moved.left - 1:,} behind it" if moved.left > 1 else ""
    return f"{where}: {done}; still stopped by {culprit.item.parked_id}{behind}: {culprit.reason}: {culprit.message}"
