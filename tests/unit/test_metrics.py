"""What a worker's metrics say: what is configured, what is true now, and nothing that has stopped being so."""

from contextlib import asynccontextmanager

import httpx
import pytest

from sitelog.agents._health import HealthServer
from sitelog.agents._metrics import Metrics
from sitelog.agents._progress import Progress
from sitelog.agents._stopped import StoppedEntities
from sitelog.projections._slice import Outcome
from sitelog.streams._batch import Claim, RecordBatch
from sitelog.streams.settings import TopicSettings
from tests.partition import Record

SITES, TERRITORIES = "customer-sites-events", "territory-events"
TOPICS = {SITES: TopicSettings(partitions=6), TERRITORIES: TopicSettings(partitions=3, retention_ms=-1)}


@pytest.fixture
def progress():
    return Progress()


@pytest.fixture
def metrics(progress):
    return Metrics("projector", progress, topics=TOPICS)


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, {"consumer": "projector", **labels})


def test_rules_can_hold_lag_and_partitions_against_what_is_configured(metrics):
    assert value(metrics, "sitelog_topic_partitions", topic=SITES) == 6
    assert value(metrics, "sitelog_topic_retention_seconds", topic=SITES) == 7 * 86_400


def test_what_kafka_keeps_for_ever_never_runs_out(metrics):
    assert value(metrics, "sitelog_topic_retention_seconds", topic=TERRITORIES) == float("inf")


@pytest.mark.parametrize("topic", ["another-topic", SITES])
def test_events_are_counted_for_a_configured_topic_that_no_schema_names_too(progress, topic):
    metrics = Metrics("projector", progress, topics={"another-topic": TopicSettings(partitions=1)})
    metrics.committed(topic, Outcome("applied", events=2))
    assert value(metrics, "sitelog_events_total", topic=topic) == 2


def test_a_partition_s_position_is_told_while_this_worker_has_it(metrics, progress):
    progress.seen(SITES, 4, applied=17, highwater=20)
    assert value(metrics, "sitelog_position_offset", topic=SITES, partition="4") == 17
    assert value(metrics, "sitelog_lag_events", topic=SITES, partition="4") == 3
    progress.keep(set())
    assert value(metrics, "sitelog_position_offset", topic=SITES, partition="4") is None


def test_after_idle_days_the_lag_counts_from_the_event_that_came():
    clock = Clock()
    progress = Progress(clock, clock)
    metrics = Metrics("projector", progress, clock)
    progress.moved(batch(end=17, appended_at=clock.now))
    clock.now += 4 * 86_400
    progress.seen(SITES, 4, applied=17, highwater=17)
    assert value(metrics, "sitelog_lag_seconds", topic=SITES, partition="4") == 0
    progress.seen(SITES, 4, applied=17, highwater=18)
    clock.now += 30
    progress.seen(SITES, 4, applied=17, highwater=19)
    assert value(metrics, "sitelog_lag_events", topic=SITES, partition="4") == 2
    assert value(metrics, "sitelog_lag_seconds", topic=SITES, partition="4") == 30


def test_a_partition_that_stays_behind_has_the_age_of_the_last_event_applied():
    clock = Clock()
    progress = Progress(clock, clock)
    metrics = Metrics("projector", progress, clock)
    progress.seen(SITES, 4, applied=10, highwater=10)
    progress.seen(SITES, 4, applied=10, highwater=20)
    clock.now += 600
    progress.moved(batch(end=17, appended_at=clock.now - 60, highwater=20))
    assert value(metrics, "sitelog_lag_seconds", topic=SITES, partition="4") == 60


def test_after_a_restart_the_lag_counts_from_the_first_event_that_is_not_applied():
    clock = Clock()
    progress = Progress(clock, clock)
    metrics = Metrics("projector", progress, clock)
    progress.seen(SITES, 4, applied=10, highwater=20)
    assert value(metrics, "sitelog_lag_seconds", topic=SITES, partition="4") == 0  # nothing is read yet
    progress.seen(SITES, 4, applied=10, highwater=20, oldest_ms=int(clock.now - 5 * 86_400) * 1000)
    assert value(metrics, "sitelog_lag_seconds", topic=SITES, partition="4") == 5 * 86_400
    progress.moved(batch(end=17, appended_at=clock.now - 60, highwater=20))
    progress.seen(SITES, 4, applied=17, highwater=20, oldest_ms=int(clock.now - 5 * 86_400) * 1000)
    assert value(metrics, "sitelog_lag_seconds", topic=SITES, partition="4") == 60


class Clock:
    """Time that passes only when it is told to."""

    now = 1_700_000_000.0

    def __call__(self):
        return self.now


def batch(end, appended_at, highwater=None):
    claim = Claim(SITES, 4, epoch=1, read_offset=end, applied_offset=end)
    records = [Record(end - 1, int(appended_at * 1000), b"site", b"")]
    return RecordBatch(claim, end - 1, end, records, highwater or end)


class Pool:
    """Answers with what it was given, or raises it."""

    def __init__(self):
        self.answer = []

    async def fetch(self, *_):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_the_number_of_stopped_entities_follows_postgres_and_stands_while_it_is_away(metrics):
    pool = Pool()
    stopped = StoppedEntities("projector", lambda: pool, metrics)
    for answer, expected in [([(SITES, 2)], 2), (OSError("gone"), 2), ([(SITES, 0)], 0)]:
        pool.answer = answer
        await stopped.look()
        assert value(metrics, "sitelog_stopped_entities", topic=SITES) == expected


@asynccontextmanager
async def serving(metrics, ping):
    """The pages of a worker that has nothing to complain of but what `ping` raises."""
    server = HealthServer("127.0.0.1", 0, metrics=metrics, not_live=list, not_ready=list, ping=ping)
    await server.on_start()
    host, port = server.address
    async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
        yield client
    await server.on_stop()


async def test_whether_a_worker_is_ready_is_found_out_for_whoever_reads_its_metrics(metrics):
    problems = []

    async def ping():
        if problems:
            raise OSError(problems[0])

    async with serving(metrics, ping) as client:
        assert 'sitelog_ready{consumer="projector"} 1.0' in (await client.get("/metrics")).text
        problems.append("connection refused")
        assert 'sitelog_ready{consumer="projector"} 0.0' in (await client.get("/metrics")).text
