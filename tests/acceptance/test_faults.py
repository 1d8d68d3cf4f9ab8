"""Whatever dies when: every acknowledged event is in the log once, dense and in order, and the rows are right."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from itertools import islice
from pathlib import Path
from time import monotonic

import pytest

from sitelog.deploy._daemon import stop_together
from sitelog.deploy._ports import LOOPBACK
from sitelog.deploy.kafka import broker_daemon, start_brokers
from sitelog.deploy.postgres import postgres_daemon, start_postgres
from tests.commit_proxy import open_proxy
from tests.conftest import Services
from tests.lives import Lives
from tests.partition import event, renamed
from tests.rig import SESSION_SECONDS, Rig, open_rig
from tests.silent import open_silent
from tests.until import until
from tests.worker_process import WorkerProcess

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kafka")]

LOAD = 400
"""Events per second: enough that something is always under way, little enough for a busy machine."""

SLACK_SECONDS = 3.0
"""For a machine that does other things besides."""

SITE_EVENTS = """
SELECT count(*) FROM sitelog.event_log JOIN sitelog.log_partition USING (log_partition)
WHERE topic = 'customer-sites-events'
"""
SITE_LOG = "SELECT event_id::text FROM sitelog.event_log WHERE entity_id = 'site-1' ORDER BY log_seq"
WAITING_FOR_A_LOCK = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'sitelog projector' AND wait_event_type = 'Lock'
"""


@pytest.fixture
async def rig(services: Services, database_template: str) -> AsyncIterator[Rig]:
    async with open_rig(services, database_template) as rig:
        yield rig


def report(what: str, since: float) -> float:
    """Print how long a recovery took, and return it in seconds."""
    seconds = monotonic() - since
    print(f"recovery: {what}: {seconds:.1f} s")  # noqa: T201 - the figure is wanted in the test's output
    return seconds


async def test_a_worker_killed_in_the_middle_of_a_batch_leaves_nothing_of_it(rig: Rig) -> None:
    worker = await rig.worker(instance_id="worker-1")
    lives = Lives(1)
    await rig.ledger.append_all(islice(lives, 1_000))
    await rig.applied()
    before = await rig.connection.fetchval(SITE_EVENTS)
    blocker = await rig.another_connection()
    async with blocker.transaction():
        # The log is written before the read models, so a batch that waits here is half done.
        await blocker.execute("LOCK TABLE customer_sites_v1 IN EXCLUSIVE MODE")
        await rig.ledger.append_all(islice(lives, 1_000))
        await until("a batch that waits", lambda: rig.connection.fetchval(WAITING_FOR_A_LOCK))
        worker.send(signal.SIGKILL)
        assert await worker.ends() == -signal.SIGKILL
        # Events of territories touch no site, and may have gone on.
        assert await rig.connection.fetchval(SITE_EVENTS) == before
    killed = monotonic()
    await worker.start()
    await rig.applied()
    report("kill -9 in a batch, the same instance started again", killed)
    await rig.check()


async def test_rule_1_kills_at_any_moment_lose_nothing_and_repeat_nothing(rig: Rig) -> None:
    worker = await rig.worker(instance_id="worker-1")
    async with rig.ledger.load(Lives(2), per_second=LOAD):
        for _ in range(3):
            await rig.progress()
            worker.send(signal.SIGKILL)
            await worker.ends()
            await worker.start()
            await worker.ready()
    await rig.check()


async def test_a_worker_killed_while_a_late_creation_frees_many_is_followed_by_one_that_goes_on(
    rig: Rig,
) -> None:
    worker = await rig.worker(instance_id="worker-1", batch_records_max=10)
    early = [renamed(name=f"Name {n}") for n in range(2_000)]
    await rig.ledger.append_all(early)
    await rig.applied()
    assert await rig.log_rows() == 0
    await rig.ledger.append_all([created := event("site_created")])
    for _ in range(2):
        await rig.progress()
        worker.send(signal.SIGKILL)
        await worker.ends()
        await worker.start()
    assert await rig.log_rows() < len(early)
    await rig.applied()
    logged = [row[0] for row in await rig.connection.fetch(SITE_LOG)]
    assert logged == [created.event_id, *(one.event_id for one in early)]
    row = await rig.connection.fetchrow("SELECT site_name, version FROM customer_sites WHERE site_id = 'site-1'")
    assert tuple(row) == ("Name 1999", 2_001)


async def test_a_killed_workers_partitions_go_to_the_other_within_its_session(rig: Rig) -> None:
    killed, other = await asyncio.gather(rig.worker(), rig.worker())
    await until("two owners", lambda: rig.has_owners(killed, other))
    async with rig.ledger.load(Lives(3), per_second=LOAD):
        await rig.progress()
        killed.send(signal.SIGKILL)
        at = monotonic()
        await until("one owner", lambda: rig.has_owners(other))
        seconds = report("kill -9 of one of two, its partitions claimed by the other", at)
    assert seconds < SESSION_SECONDS + 3 + SLACK_SECONDS
    await rig.check()


async def test_postgres_stopped_hard_under_load_is_waited_for(rig: Rig) -> None:
    worker = await rig.worker()
    async with rig.ledger.load(Lives(4), per_second=LOAD):
        await rig.progress()
        await asyncio.to_thread(stop_together, [postgres_daemon(rig.services.folder)], [(signal.SIGQUIT, 20.0)])
        await until("a worker that isn't ready", lambda: worker.complains("Postgres does not answer: "))
        assert (await worker.get("/livez")).status_code == 200
        await start_postgres(rig.services.folder, rig.services.state, os.environ)
        at = monotonic()
        await rig.connect()
        await rig.progress()
        report("Postgres accepts connections again", at)
    await rig.check()
    assert worker.runs
    await worker.ready()


async def test_sigterm_under_load_ends_cleanly_and_the_next_start_goes_on(rig: Rig) -> None:
    worker = await rig.worker()
    async with rig.ledger.load(Lives(5), per_second=LOAD):
        await rig.progress()
        worker.send(signal.SIGTERM)
        at = monotonic()
        assert await worker.ends() == 0
        assert report("SIGTERM to the end", at) < 10 + SLACK_SECONDS
        await worker.start()
        await rig.progress()
        report("SIGTERM, end and start to progress", at)
    await rig.check()


async def test_sigterm_while_postgres_is_away_ends_cleanly(rig: Rig) -> None:
    async with open_proxy(rig.services.state.postgres_port) as proxy:
        worker = await rig.worker(postgres_port=proxy.port)
        proxy.vanish()
        await rig.ledger.append_all(islice(Lives(9), 500))
        await until("a batch that fails", lambda: worker.complains("]: Postgres: "))
        worker.send(signal.SIGTERM)
        at = monotonic()
        assert await worker.ends() == 0
        report("SIGTERM to the end while Postgres is away", at)


async def test_sigterm_while_postgres_hangs_ends_in_time_with_71(rig: Rig) -> None:
    async with open_proxy(rig.services.state.postgres_port) as proxy:
        worker = await rig.worker(postgres_port=proxy.port, shutdown_seconds=3)
        proxy.hold()
        await rig.ledger.append_all(islice(Lives(10), 500))
        await proxy.held.wait()
        worker.send(signal.SIGTERM)
        at = monotonic()
        assert await worker.ends() == 71
        assert report("SIGTERM to the end while Postgres hangs", at) < 3 + SLACK_SECONDS
        assert worker.log()[-1]["message"].startswith("still busy 3 s after the signal to stop: what is under way ")


async def test_sigterm_before_kafka_answers_for_the_first_time_ends_with_143(rig: Rig) -> None:
    async with open_silent() as kafka:
        servers = {"SITELOG__KAFKA_CONFIG__BOOTSTRAP_SERVERS": f"{LOOPBACK}:{kafka.port}"}
        worker = await rig.launch(environ=servers)
        await kafka.asked.wait()
        worker.send(signal.SIGTERM)
        at = monotonic()
        assert (await worker.ends(), worker.text()) == (143, "")
        assert report("SIGTERM to the end while the first broker is silent", at) < 2 + SLACK_SECONDS


async def test_a_zombie_is_fenced_and_comes_back_by_itself(rig: Rig) -> None:
    async with open_proxy(rig.services.state.postgres_port) as proxy:
        zombie, other = await asyncio.gather(rig.worker(postgres_port=proxy.port), rig.worker())
        await until("two owners", lambda: rig.has_owners(zombie, other))
        proxy.hold()
        async with rig.ledger.load(Lives(6), per_second=LOAD):
            await proxy.held.wait()
            zombie.send(signal.SIGSTOP)
            at = monotonic()
            await until("one owner", lambda: rig.has_owners(other))
            report("SIGSTOP of one of two, its partitions claimed by the other", at)
            proxy.release()
            zombie.send(signal.SIGCONT)
            at = monotonic()
            await until("two owners", lambda: rig.has_owners(zombie, other))
            report("SIGCONT until it owns partitions again", at)
        await rig.check()
        assert await zombie.metric("sitelog_batches_total", verdict="fenced") > 0
        assert zombie.runs
        await zombie.ready()


async def test_a_commit_whose_answer_is_lost_is_recognised_as_done(rig: Rig) -> None:
    async with open_proxy(rig.services.state.postgres_port) as proxy:
        # Each batch has a transaction of its own: one lost answer is one batch that is recognised.
        worker = await rig.worker(postgres_port=proxy.port, shared_records_max=1)

        async def recognised(batches: int) -> bool:
            return await worker.metric("sitelog_batches_total", verdict="applied_before") == batches

        lives = Lives(7)
        await rig.ledger.append_all(islice(lives, 500))
        await rig.applied()
        async with rig.ledger.load(lives, per_second=LOAD):
            for number in (1, 2, 3):  # one by one: the try that recognises a commit ends with one, too
                proxy.lose_commits(1)
                await until(f"the lost answer {number}", proxy.has_lost_all)
                await until(f"batch {number} recognised", partial(recognised, number))
        await rig.check()
        assert await recognised(3)


async def test_a_broker_killed_under_load_is_waited_for(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "aiokafka")  # the producer says that the broker is away a hundred times a second
    worker = await rig.worker()
    folder, state = rig.services.folder, rig.services.state
    async with rig.ledger.load(Lives(8), per_second=LOAD):
        await rig.progress()
        await asyncio.to_thread(stop_together, [broker_daemon(folder, state.brokers[0])], [(signal.SIGKILL, 20.0)])
        await start_brokers(folder, state, os.environ, print)
        at = monotonic()
        await rig.progress()
        report("the only broker answers again after kill -9", at)
    await rig.check()
    assert worker.runs
    assert worker.text().count("Failed fetch messages from ") < 10, "a dead broker fills the log"


async def test_sigterm_while_the_broker_is_away_ends_cleanly(rig: Rig) -> None:
    worker = await rig.worker()
    folder, state = rig.services.folder, rig.services.state
    await rig.ledger.append_all(islice(Lives(11), 500))
    await rig.applied()
    await asyncio.to_thread(stop_together, [broker_daemon(folder, state.brokers[0])], [(signal.SIGKILL, 20.0)])
    await until("fetches that fail", lambda: says(worker, "Failed fetch messages from "))
    worker.send(signal.SIGTERM)
    at = monotonic()
    code = await worker.ends()
    seconds = report("SIGTERM to the end while the broker is away", at)
    await start_brokers(folder, state, os.environ, print)
    assert code == 0, worker.text()[-3_000:]
    assert seconds < 10


async def says(worker: WorkerProcess, part: str) -> bool:
    return worker.said(part)


BROKEN_CLIENT = """
from aiokafka.consumer.fetcher import Fetcher

async def ends_at_once(self):
    raise AssertionError("the client's own mistake")

Fetcher._fetch_requests_routine = ends_at_once
"""


async def test_a_client_that_reads_no_more_ends_the_worker(rig: Rig, tmp_path: Path) -> None:
    """Its heartbeats would go on, and nobody else would read what is this worker's."""
    (tmp_path / "sitecustomize.py").write_text(BROKEN_CLIENT, encoding="utf-8")
    worker = await rig.launch(environ={"PYTHONPATH": str(tmp_path)})
    assert await worker.ends(30) == 70
    assert worker.said("Kafka's client can't go on: fetching has ended: AssertionError(\"the client's own mistake\")")
