"""What a worker says of itself: /livez, /readyz, /metrics and its log tell the truth."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import islice
from pathlib import Path
from time import monotonic

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sitelog.deploy._ports import free_port
from tests.chaos.network import Link
from tests.commit_proxy import open_proxy
from tests.conftest import Services
from tests.frozen_broker import frozen_broker
from tests.lives import Lives
from tests.rig import Rig, open_rig
from tests.until import until
from tests.worker_process import WorkerProcess

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kafka")]

LABELS = {
    "sitelog_events_total": {"consumer", "topic"},
    "sitelog_parked_total": {"consumer", "status"},
    "sitelog_batches_total": {"consumer", "verdict"},
    "sitelog_duplicates_total": {"consumer"},
    "sitelog_conflicts_total": {"consumer"},
    "sitelog_retries_total": {"consumer", "of"},
    "sitelog_rebalances_total": {"consumer"},
    "sitelog_batch_records_count": {"consumer"},
    "sitelog_decode_seconds_sum": {"consumer"},
    "sitelog_batch_seconds_sum": {"consumer"},
    "sitelog_append_to_visible_seconds_bucket": {"consumer", "le"},
    "sitelog_ready": {"consumer"},
    "sitelog_lag_events": {"consumer", "topic", "partition"},
    "sitelog_lag_seconds": {"consumer", "topic", "partition"},
    "sitelog_position_offset": {"consumer", "topic", "partition"},
    "sitelog_stopped_entities": {"consumer", "topic"},
    "sitelog_topic_partitions": {"consumer", "topic"},
    "sitelog_topic_retention_seconds": {"consumer", "topic"},
    "process_resident_memory_bytes": set(),
}

SMALL = {"SITELOG__APPEND__EVENT_BYTES_MAX": "65536", "SITELOG__APPEND__BATCH_BYTES": "65536"}
"""What lets a worker's polls be small, too."""

STUCK_SECONDS = 5
"""The least that can be configured."""


@pytest.fixture
async def rig(services: Services, database_template: str) -> AsyncIterator[Rig]:
    async with open_rig(services, database_template) as rig:
        yield rig


async def test_a_worker_is_ready_once_it_has_claimed_its_partitions_and_alive_before(rig: Rig) -> None:
    blocker = await rig.another_connection()
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE sitelog.consumer_position IN EXCLUSIVE MODE")
        worker = await rig.launch()
        first = await until("an answer", lambda: worker.answer("/readyz"))
        assert first.status_code == 503
        assert first.headers["content-type"].startswith("application/problem+json")
        assert first.json() | {"detail": ""} == {
            "type": "about:blank",
            "title": "not ready",
            "status": 503,
            "detail": "",
        }
        await until("its partitions", lambda: worker.complains("9 partitions are assigned but not claimed"))
        assert (await worker.get("/livez")).status_code == 200
        assert await worker.metric("sitelog_ready") == 0
    await worker.ready()
    assert (await worker.get("/readyz")).json() == {"status": "ok"}
    assert await worker.metric("sitelog_ready") == 1


async def test_a_worker_that_waits_for_a_lock_says_so_and_is_not_killed_for_it(rig: Rig) -> None:
    worker = await rig.worker(lock_timeout_seconds=1, stuck_after_seconds=STUCK_SECONDS)
    await rig.ledger.append_all(islice(Lives(1), 100))
    await rig.applied()
    blocker = await rig.another_connection()
    async with blocker.transaction():
        await blocker.execute("SELECT FROM sitelog.consumer_position FOR UPDATE")
        await rig.ledger.append_all(islice(Lives(2), 100))
        await until(
            "a worker that isn't ready",
            lambda: worker.complains("]: Postgres: canceling statement due to lock timeout"),
        )
        assert (await worker.get("/livez")).status_code == 200
        assert await worker.metric("sitelog_lag_events") == 100
        assert await worker.metric("sitelog_retries_total", of="database") > 0
    await worker.ready()
    await rig.check()
    assert await worker.metric("sitelog_lag_events") == 0


async def test_a_worker_that_stands_still_for_no_reason_is_not_alive(rig: Rig) -> None:
    async with open_proxy(rig.services.state.postgres_port) as proxy:
        worker = await rig.worker(postgres_port=proxy.port, stuck_after_seconds=STUCK_SECONDS)
        proxy.hold()
        await rig.ledger.append_all(islice(Lives(1), 100))
        await proxy.held.wait()
        answer = await until("a worker that isn't alive", lambda: worker.answer("/livez", 503))
        assert answer.json()["title"] == "not live"
        assert " at 0 of " in answer.json()["detail"]
        proxy.release()
        await until("a worker that is alive", lambda: worker.answer("/livez", 200))
        await rig.check()


async def stays_alive(worker: WorkerProcess) -> None:
    """Ask whether it is alive, again and again, until whatever stands still must have been called stuck."""
    began = monotonic()

    async def enough() -> bool:
        answer = await worker.get("/livez")
        assert answer.status_code == 200, answer.text
        return monotonic() - began > STUCK_SECONDS + 2

    await until("so many answers", enough)


async def test_while_postgres_is_away_no_partition_is_stuck_however_long_and_many_they_are(rig: Rig) -> None:
    async with open_proxy(rig.services.state.postgres_port) as proxy:
        # Each batch has a transaction of its own, and two are tried at once: the others wait behind them.
        worker = await rig.worker(postgres_port=proxy.port, stuck_after_seconds=STUCK_SECONDS, shared_records_max=1)
        lives = Lives(1)
        await rig.ledger.append_all(islice(lives, 100))
        await rig.applied()
        proxy.vanish()
        await rig.ledger.append_all(islice(lives, 2_000))
        await until("a batch that fails", lambda: worker.complains("]: Postgres: "))
        await stays_alive(worker)
        proxy.come_back()
        await stays_alive(worker)
        await rig.check()


async def test_while_the_brokers_are_away_what_they_have_keeps_nobody_from_being_alive(rig: Rig) -> None:
    await rig.ledger.append_all(islice(Lives(1), 20_000))
    blocker = await rig.another_connection()
    async with AsyncExitStack() as stack:
        async with blocker.transaction():
            # Batches wait, so that only a part is read when the broker falls silent.
            await blocker.execute("LOCK TABLE customer_sites_v1 IN EXCLUSIVE MODE")
            worker = await rig.launch(
                stuck_after_seconds=STUCK_SECONDS, lock_timeout_seconds=1, batch_bytes_max=65_536, environ=SMALL
            )
            await until("a batch that waits", lambda: worker.complains("]: Postgres: canceling statement due to lock"))
            await stack.enter_async_context(frozen_broker(rig.services))
        await stays_alive(worker)
        await until("a worker that misses Kafka", lambda: worker.complains("]: Kafka did not answer: "))
        assert await worker.metric("sitelog_lag_events") > 0
    await stays_alive(worker)
    await rig.check()


READS_ONCE = """
from aiokafka.consumer.fetcher import Fetcher

actions = Fetcher._get_actions_per_node

def until_first_answer(self, assignment):
    requests, *others = actions(self, assignment)
    answered = any(assignment.state_value(tp).highwater for tp in assignment.tps)
    return [] if answered else requests, *others

Fetcher._get_actions_per_node = until_first_answer
"""


async def test_a_worker_that_has_stopped_reading_is_not_alive_as_kafka_answers(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(READS_ONCE, encoding="utf-8")
    await rig.ledger.append_all(islice(Lives(1), 20_000))
    worker = await rig.launch(
        stuck_after_seconds=STUCK_SECONDS, batch_bytes_max=65_536, environ={**SMALL, "PYTHONPATH": str(tmp_path)}
    )
    answer = await until("a worker that isn't alive", lambda: worker.answer("/livez", 503))
    assert " since " in answer.json()["detail"]
    assert await rig.log_rows() > 0
    assert not await worker.complains("Kafka")


async def test_while_postgres_is_silent_its_metrics_come_before_prometheus_gives_up(rig: Rig) -> None:
    link = Link(free_port(besides=set()), rig.services.state.postgres_port)
    await link.open()
    try:
        worker = await rig.worker(postgres_port=link.port)
        link.silence()
        for path in ("/metrics", "/readyz", "/metrics"):
            asked = monotonic()
            await worker.get(path)
            assert monotonic() - asked < 5, path
        assert await worker.metric("sitelog_ready") == 0
        link.resume()
        await worker.ready()
    finally:
        await link.close()


async def test_metrics_count_what_happened_by_name_and_label(rig: Rig) -> None:
    worker = await rig.worker()
    await rig.ledger.append_all(islice(Lives(1), 500))
    await rig.check()

    page = (await worker.get("/metrics")).text
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    found = {sample.name: set(sample.labels) for sample in samples}
    assert found | LABELS == found
    ours = [sample for sample in samples if sample.name.startswith("sitelog_")]
    assert {sample.labels["consumer"] for sample in ours} == {"projector"}
    assert await worker.metric("sitelog_events_total") == 500
    conflicts = len(rig.ledger.folded().conflicts)
    assert await worker.metric("sitelog_conflicts_total") == conflicts > 0
    assert await worker.metric("sitelog_batches_total", verdict="applied") > 0
    assert await worker.metric("sitelog_batch_records_sum") == 500
    assert await worker.metric("sitelog_position_offset") == 500


async def test_the_log_is_json_a_line_and_keeps_passwords_to_itself(rig: Rig) -> None:
    worker = await rig.worker()
    await worker.stop()

    assert {"time", "level", "logger", "message"} == set.intersection(*(set(line) for line in worker.log()))
    for password in (rig.services.state.app_password, rig.services.state.owner_password):
        assert password.get_secret_value() not in worker.text()
    ours = [line for line in worker.log() if line["logger"].startswith("sitelog")]
    assert [line["message"] for line in ours if line["level"] != "info"] == []
