"""What a worker counts, for Prometheus."""

import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sitelog.agents._progress import Progress
from sitelog.projections._slice import Outcome, Verdict
from sitelog.streams._batch import RecordBatch
from sitelog.streams.events import EVENT_TYPES
from sitelog.streams.settings import TopicSettings

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TOPICS: Final = frozenset(event.topic for event in EVENT_TYPES.values())
RECORDS: Final = (1, 5, 10, 50, 100, 500, 1000, 2000, 5000, 10_000)
NO_TOPICS: Final[Mapping[str, TopicSettings]] = MappingProxyType({})


class Metrics:
    """The metrics of one consumer; each has the label `consumer`, but for Prometheus's own of the process."""

    def __init__(
        self,
        consumer: str,
        progress: Progress,
        now: Callable[[], float] = time.time,
        *,
        topics: Mapping[str, TopicSettings] = NO_TOPICS,
    ) -> None:
        self.registry = CollectorRegistry()
        labels = ["consumer"]
        events = self._counter("events", "Events applied to log and read models", [*labels, "topic"])
        put_aside = self._counter("parked", "Events put aside", [*labels, "status"])
        verdicts = self._counter("batches", "Record batches, by what became of them", [*labels, "verdict"])
        retries = self._counter("retries", "Tries repeated because of something outside", [*labels, "of"])
        self._events = {topic: events.labels(consumer, topic) for topic in TOPICS | topics.keys()}
        self._parked = {status: put_aside.labels(consumer, status) for status in ("parked", "waiting")}
        self._retries = {of: retries.labels(consumer, of) for of in ("database", "registry")}
        self._verdicts = {v: verdicts.labels(consumer, v) for v in ("applied", "applied_before", "fenced", "lost")}
        self._duplicates = self._counter("duplicates", "Events sent twice and left out", labels).labels(consumer)
        self._conflicts = self._counter("conflicts", "Fields in conflict", labels).labels(consumer)
        self._rebalances = self._counter("rebalances", "Rebalances of the consumer group", labels).labels(consumer)
        self._records = self._histogram("batch_records", "Records in a batch", RECORDS).labels(consumer)
        self._decoding = self._histogram("decode_seconds", "Decoding a batch", SECONDS).labels(consumer)
        self._applying = self._histogram("batch_seconds", "A batch from poll to commit", SECONDS).labels(consumer)
        self._latency = self._histogram(
            "append_to_visible_seconds", "From append to committed, for the last event of a batch", SECONDS
        ).labels(consumer)
        self.ready = Gauge("sitelog_ready", "1 while /readyz says yes", labels, registry=self.registry).labels(consumer)
        self._stopped = Gauge(
            "sitelog_stopped_entities", "Entities that a parked event stops", [*labels, "topic"], registry=self.registry
        )
        self._consumer = consumer
        self._now = now
        self._describe(topics)
        self.registry.register(LagCollector(consumer, progress, now))
        ProcessCollector(registry=self.registry)

    def _describe(self, topics: Mapping[str, TopicSettings]) -> None:
        """Say what is configured, for rules to hold the rest against."""
        labels = ["consumer", "topic"]
        partitions = Gauge("sitelog_topic_partitions", "Partitions, as configured", labels, registry=self.registry)
        retention = Gauge(
            "sitelog_topic_retention_seconds", "How long Kafka keeps an event", labels, registry=self.registry
        )
        for name, topic in topics.items():
            partitions.labels(self._consumer, name).set(topic.partitions)
            retention.labels(self._consumer, name).set(
                topic.retention_ms / 1000 if topic.retention_ms >= 0 else float("inf")
            )

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(f"sitelog_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"sitelog_{name}", text, ["consumer"], buckets=buckets, registry=self.registry)

    def committed(self, topic: str, outcome: Outcome) -> None:
        """Count what a transaction has done with a topic's events, of a whole batch or a part of one."""
        self._events[topic].inc(outcome.events)
        self._duplicates.inc(outcome.duplicates)
        self._conflicts.inc(outcome.conflicts)
        self._parked["parked"].inc(outcome.parked)
        self._parked["waiting"].inc(outcome.waiting)

    def settled(self, batch: RecordBatch, verdict: Verdict, *, decode: float, total: float) -> None:
        """Count a batch of which nothing is left to do; durations in seconds."""
        self._verdicts[verdict].inc()
        if verdict != "applied":
            return
        self._records.observe(len(batch.records))
        self._decoding.observe(decode)
        self._applying.observe(total)
        self._latency.observe(max(0.0, self._now() - batch.records[-1].timestamp / 1000))

    def stopped(self, entities: Mapping[str, int]) -> None:
        """Take note how many entities are stopped, by topic, as Postgres says."""
        for topic, count in entities.items():
            self._stopped.labels(self._consumer, topic).set(count)

    def retried(self, of: str) -> None:
        """Count a try that will be repeated."""
        self._retries[of].inc()

    def rebalanced(self) -> None:
        """Count a rebalance."""
        self._rebalances.inc()


class LagCollector(Collector):
    """Reads the lag when it is asked for, so that it grows while nothing moves."""

    def __init__(self, consumer: str, progress: Progress, now: Callable[[], float]) -> None:
        self._consumer = consumer
        self._progress = progress
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """Yield position, events and seconds behind, by partition."""
        labels = ["consumer", "topic", "partition"]
        position = GaugeMetricFamily("sitelog_position_offset", "Offset of the next event to apply", labels=labels)
        events = GaugeMetricFamily("sitelog_lag_events", "Events appended and not applied yet", labels=labels)
        seconds = GaugeMetricFamily(
            "sitelog_lag_seconds", "Age of the last event applied, while behind; no longer than behind", labels=labels
        )
        for (topic, partition), p in self._progress.partitions.items():
            behind = max(0, p.highwater - p.applied)
            # After idle days the last event is old, and the partition only just behind.
            since = max(p.append_time_ms / 1000, p.behind_since)
            age = self._now() - since if behind and since else 0.0
            position.add_metric([self._consumer, topic, str(partition)], p.applied)
            events.add_metric([self._consumer, topic, str(partition)], behind)
            seconds.add_metric([self._consumer, topic, str(partition)], max(0.0, age))
        yield position
        yield events
        yield seconds
