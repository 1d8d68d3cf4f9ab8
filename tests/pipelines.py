"""Pipelines as a worker has them, around whatever projector, pool and consumer a test needs."""

from typing import Any

from sitelog.agents._applier import Applier
from sitelog.agents._metrics import Metrics
from sitelog.agents._pipeline import Pipeline
from sitelog.agents._progress import Progress
from sitelog.agents._spans import NO_SPANS, Spans
from sitelog.streams.codec import Codec


def pipeline_around(
    projector: Any,
    codec: Codec,
    *,
    pool: Any,
    consumer: Any,
    progress: Progress,
    spans: Spans = NO_SPANS,
    in_flight_max: int = 1,
    shared_records_max: int = 1_000,
    shared_bytes_max: int = 1_000_000,
    held_seconds_max: float = 60,
) -> Pipeline:
    metrics = Metrics("projector", progress)
    applier = Applier(
        projector,
        pool=lambda: pool,
        metrics=metrics,
        progress=progress,
        spans=spans,
        held_seconds_max=held_seconds_max,
    )
    return Pipeline(
        applier,
        codec,
        consumer=lambda: consumer,
        metrics=metrics,
        progress=progress,
        spans=spans,
        in_flight_max=in_flight_max,
        shared_records_max=shared_records_max,
        shared_bytes_max=shared_bytes_max,
    )
