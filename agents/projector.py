"""The worker that turns topics into the log and the read models: one Faust app, one consumer, one lag."""

import os
import socket
from typing import TYPE_CHECKING, Any, Final, cast

import asyncpg
from mode import Service

from sitelog.agents._applier import Applier
from sitelog.agents._garbage import Garbage
from sitelog.agents._health import HealthServer
from sitelog.agents._metrics import Metrics
from sitelog.agents._pipeline import Pipeline
from sitelog.agents._progress import Progress
from sitelog.agents._spans import NO_SPANS, Spans
from sitelog.agents._stopped import StoppedEntities
from sitelog.agents._watch import Watch
from sitelog.agents._worker import SitelogWorker
from sitelog.projections._database import open_pool
from sitelog.projections._positions import PostgresPositions
from sitelog.projections._read_models import PROJECTOR
from sitelog.projections._registry import Plan
from sitelog.projections._transaction import Projector
from sitelog.streams._batch import Position
from sitelog.streams._group import Purpose, group_id
from sitelog.streams.app import BatchApp, PollSchema, build_app
from sitelog.streams.codec import Codec
from sitelog.streams.registry import SchemaRegistry
from sitelog.streams.settings import Settings
from sitelog.streams.transport import BatchConsumer

if TYPE_CHECKING:
    from sitelog.streams._telemetry import Telemetry

CONSUMER: Final = PROJECTOR


class Database(Service):
    """The pool, open while the worker runs."""

    def __init__(self, settings: Settings, planned: Plan) -> None:
        super().__init__()
        self._settings = settings
        self._planned = planned
        self.pool: asyncpg.Pool | None = None

    async def on_start(self) -> None:
        """Open the pool."""
        self.pool = await open_pool(
            self._settings.database_config.primary,
            application=f"sitelog {CONSUMER}",
            worker=self._settings.worker,
        )

    async def on_stop(self) -> None:
        """Close the pool, whatever its connections are doing: an open transaction rolls back."""
        if self.pool is not None:
            self.pool.terminate()

    def opened(self) -> asyncpg.Pool:
        """Return the pool; it is there before any batch comes."""
        if self.pool is None:
            raise RuntimeError("the database service has not started")
        return self.pool

    async def ping(self) -> None:
        """Raise unless Postgres answers."""
        await self.opened().fetchval("SELECT 1")

    async def claim(self, topic: str, partition: int, generation: int, *, force: bool) -> Position | None:
        """Claim a partition for this process, see PostgresPositions."""
        owner = self._settings.worker.instance_id or f"{socket.gethostname()}:{os.getpid()}"
        positions = PostgresPositions(self.opened(), CONSUMER, owner, self._planned.projections)
        return await positions.claim(topic, partition, generation, force=force)


class Registry(Service):
    """The schema registry's client, open while the worker runs; None where no registry is configured."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        registry = settings.kafka_config.schema_registry
        self.client = SchemaRegistry(registry) if registry else None

    async def on_start(self) -> None:
        """Open the client; `mode` closes it when the worker stops."""
        if self.client is not None:
            await self.add_async_context(self.client)


def build(settings: Settings, planned: Plan, purpose: Purpose, telemetry: "Telemetry | None" = None) -> SitelogWorker:
    """Wire the worker together; nothing runs before it is started."""
    registry = Registry(settings)
    codec = Codec(registry.client)
    database = Database(settings, planned)
    progress = Progress()
    metrics = Metrics(CONSUMER, progress, topics=settings.kafka_config.topics)
    projector = Projector.configured(planned, codec, CONSUMER, settings.worker)
    spans = spans_of(settings, telemetry)
    applier = Applier(
        projector,
        pool=database.opened,
        metrics=metrics,
        progress=progress,
        spans=spans,
        held_seconds_max=settings.worker.held_seconds_max,
    )
    pipeline = Pipeline(
        applier,
        codec,
        consumer=lambda: cast("BatchConsumer", app.consumer),
        metrics=metrics,
        progress=progress,
        spans=spans,
        in_flight_max=settings.worker.batches_in_flight_max,
        shared_records_max=settings.worker.shared_records_max,
        shared_bytes_max=settings.worker.batch_bytes_max,
    )
    app = build_app(
        settings,
        CONSUMER,
        positions=database,
        sink=pipeline,
        on_halt=lambda _: None if telemetry is None else telemetry.flush(),
        client_id=purpose.client_id,
    )
    declare_agent(app, settings, pipeline)
    app.on_partitions_revoked.connect(lambda *_, **__: metrics.rebalanced(), weak=False)
    health = HealthServer(
        settings.worker.web_host,
        settings.worker.web_port,
        metrics=metrics,
        not_live=lambda: progress.stuck(settings.worker.stuck_after_seconds),
        not_ready=lambda: [*not_ready(app), *progress.failures()],
        ping=database.ping,
    )
    stopped = StoppedEntities(CONSUMER, database.opened, metrics)
    services = (health, database, registry, Watch(app, progress), stopped, Garbage())
    return SitelogWorker(app, *services, shutdown_seconds=settings.worker.shutdown_seconds)


def spans_of(settings: Settings, telemetry: "Telemetry | None") -> Spans:
    """Return what makes the pipeline's spans."""
    if telemetry is None:
        return NO_SPANS
    from sitelog.agents._batch_spans import BatchSpans  # noqa: PLC0415 - OpenTelemetry is optional

    return BatchSpans(telemetry.tracer, group=group_id(CONSUMER), database=settings.database_config.primary)


def declare_agent(app: BatchApp, settings: Settings, pipeline: Pipeline) -> None:
    """Let a Faust agent take the batches of all topics, one after the other; order is by partition."""
    topic = app.topic(*settings.kafka_config.topics, schema=PollSchema(), internal=False)

    @app.agent(topic, name=CONSUMER, concurrency=1)
    async def project(polls: Any) -> None:
        async for batches in polls:
            for batch in batches:
                await pipeline.submit(batch)


def not_ready(app: BatchApp) -> list[str]:
    """Say what keeps a worker from being ready: it is rebalancing, or hasn't claimed what it was assigned."""
    consumer = getattr(app, "_consumer", None)
    if consumer is None or not consumer.joined:
        return ["not in the consumer group yet"]
    if app.rebalancing:
        return ["rebalancing"]
    unclaimed = consumer.unclaimed()
    return [f"{len(unclaimed)} partitions are assigned but not claimed"] if unclaimed else []
