"""A position moved by hand: on the record, said before, and past every worker that holds the partition."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import islice
from pathlib import Path

import pytest
import typer
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from sitelog.projections._read_models import PROJECTOR
from sitelog.projections._reposition import Reposition, reposition
from sitelog.streams.examples import example
from tests.commands import Ran, config_file, sitelog
from tests.conftest import Services
from tests.lives import Lives
from tests.rig import Rig, open_rig
from tests.worker_process import WorkerProcess

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kafka")]

SITES = "customer-sites-events"
WHY = ("--reason", "the events are in the archive", "--by", "an operator")

CHANGES = "SELECT from_offset, to_offset, changed_by, reason FROM sitelog.position_change ORDER BY change_id"
STAND = """
INSERT INTO sitelog.consumer_position
    (consumer, log_partition, next_offset, log_seq, epoch, generation, owner, updated_at)
SELECT 'projector', log_partition, $3, 0, 1, 0, 'a worker', now()
FROM sitelog.log_partition
WHERE topic = $1 AND partition = $2
ON CONFLICT (consumer, log_partition) DO UPDATE SET next_offset = $3, epoch = consumer_position.epoch + 1
"""
COUNT = "SELECT count(*) FROM sitelog.event_log"
POSITION = """
SELECT next_offset FROM sitelog.consumer_position JOIN sitelog.log_partition USING (log_partition)
WHERE topic = $1 AND partition = $2
"""


@pytest.fixture
async def rig(services: Services, database_template: str) -> AsyncIterator[Rig]:
    async with open_rig(services, database_template) as rig:
        yield rig


def config(rig: Rig) -> Path:
    return config_file(rig.services, rig.database)


async def sites(rig: Rig, count: int) -> TopicPartition:
    """Append so many sites, and return the partition of the fullest."""
    await rig.ledger.append_all(
        example("site_created", event_id=f"00000000-0000-4000-8000-{n:012}", site_id=f"s{n}") for n in range(count)
    )
    ends = {place: end for place, end in rig.ledger.ends().items() if place[0] == SITES}
    return TopicPartition(*max(ends, key=lambda place: ends[place]))


async def delete_before(rig: Rig, place: TopicPartition, offset: int) -> None:
    """Let the topic begin later, as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=rig.settings.kafka_config.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records({place: RecordsToDelete(before_offset=offset)})
    finally:
        await admin.close()


async def refused(rig: Rig) -> WorkerProcess:
    """Start a worker that won't become ready."""
    worker = WorkerProcess(rig.services.folder, f"{rig.database}-refused", config(rig))
    rig.workers.append(worker)
    await worker.start({"SITELOG__WORKER__WEB_PORT": "0"})
    return worker


async def test_a_fresh_database_can_begin_where_an_old_topic_does(rig: Rig) -> None:
    place = await sites(rig, 60)
    await delete_before(rig, place, 4)
    worker = await refused(rig)
    assert await worker.ends() == 74

    ran = await sitelog(config(rig), "position", "set", place.topic, str(place.partition), "start", *WHY, "--yes")

    assert ran.code == 0, ran.err
    assert "4 events, offsets 0 to 3, no longer in the topic: skipped" in ran.out
    await rig.worker()
    await rig.applied()
    assert await rig.connection.fetchval(COUNT) == 56


async def test_a_position_that_nobody_has_claimed_can_be_set(rig: Rig) -> None:
    place = await sites(rig, 60)
    ran = await sitelog(config(rig), "position", "set", place.topic, str(place.partition), "2", *WHY, "--yes")
    assert ran.code == 0, ran.err
    assert "never claimed → 2" in ran.out
    assert "2 events, offsets 0 to 1, in the topic: never applied" in ran.out
    await rig.worker()
    await rig.applied()
    assert await rig.connection.fetchval(COUNT) == 58


async def test_a_running_worker_is_fenced_and_the_next_one_reads_again_what_changes_nothing(rig: Rig) -> None:
    worker = await rig.worker(fence_grace_seconds=5)
    lives = Lives(5)
    await rig.ledger.append_all(islice(lives, 400))
    await rig.applied()
    place = next(place for place in rig.ledger.ends() if place[0] == SITES)

    ran = await sitelog(config(rig), "position", "set", place[0], str(place[1]), "start", *WHY, "--yes")
    assert ran.code == 0, ran.err
    assert "read again: those applied or put aside change nothing" in ran.out

    await rig.ledger.append_all(islice(lives, 400))
    assert await worker.ends(seconds=30) == 75
    assert await rig.connection.fetchval(POSITION, *place) == 0
    await rig.worker()
    await rig.check()


async def test_moving_a_position_is_recorded_and_shown(rig: Rig) -> None:
    await sites(rig, 60)
    await rig.worker()
    await rig.applied()
    for offset in ("start", "end"):
        ran = await sitelog(config(rig), "position", "set", SITES, "0", offset, *WHY, "--yes")
        assert ran.code == 0, ran.err
    end = rig.ledger.ends()[SITES, 0]
    recorded = [tuple(row) for row in await rig.connection.fetch(CHANGES)]
    assert recorded == [
        (end, 0, "an operator", "the events are in the archive"),
        (0, end, "an operator", "the events are in the archive"),
    ]
    shown = (await sitelog(config(rig), "position", "show", "--json")).json()
    assert [change["to_offset"] for change in shown["changes"]] == [end, 0]
    (position,) = [one for one in shown["positions"] if (one["topic"], one["partition"]) == (SITES, 0)]
    assert (position["next_offset"], position["anchored"]) == (end, False)
    assert "by an operator: the events are in the archive" in (await sitelog(config(rig), "position", "show")).out


async def test_a_place_that_the_topic_doesnt_have_is_refused(rig: Rig) -> None:
    for arguments, message in (
        ((SITES, "0", "999"), "expected start, end or an offset from 0 to 0, got 999"),
        ((SITES, "0", "soon"), "expected start, end or an offset"),
        ((SITES, "77", "start"), f"Kafka has no {SITES}[77]"),
        (("no-topic", "0", "start"), "Kafka has no no-topic[0]"),
    ):
        ran = await sitelog(config(rig), "position", "set", *arguments, *WHY, "--yes")
        assert ran.code == 2
        assert message in ran.err
    assert await rig.connection.fetch(CHANGES) == []


async def test_nothing_is_moved_without_a_yes_or_a_reason(rig: Rig) -> None:
    unasked = await sitelog(config(rig), "position", "set", SITES, "0", "start", "--yes")
    assert unasked.code == 2
    assert "--reason" in unasked.err
    empty = await sitelog(config(rig), "position", "set", SITES, "0", "start", "--reason", " ", "--yes")
    assert empty.code == 2
    for typed in ("", "n\n"):
        unsure = await sitelog(config(rig), "position", "set", SITES, "0", "start", *WHY, typed=typed)
        assert unsure.code == 2, unsure.err
        assert unsure.err == "error: not confirmed, so nothing was done: --yes goes without asking\n"
    assert await rig.connection.fetch(CHANGES) == []
    sure = await sitelog(config(rig), "position", "set", SITES, "0", "start", *WHY, typed="y\n")
    assert sure.code == 0, sure.err
    assert "restart it. By itself it notices no sooner than with the next event there" in sure.out
    assert len(await rig.connection.fetch(CHANGES)) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_the_question_ends_with_the_first_signal(rig: Rig, number: signal.Signals, code: int) -> None:
    arguments = ("position", "set", SITES, "0", "start", *WHY, "--config", str(config(rig)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sitelog.cli", *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            await process.stdout.readuntil(b"Move it? [y/N]:")
            await asyncio.sleep(0.2)  # it reads now
            process.send_signal(number)
            assert await process.wait() == code
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
    assert await rig.connection.fetch(CHANGES) == []


async def test_a_consumer_that_nobody_knows_is_refused(rig: Rig) -> None:
    for sure in ((), ("--yes",)):
        ran = await sitelog(config(rig), "position", "set", SITES, "0", "end", *WHY, "--consumer", "projecter", *sure)
        assert ran.code == 2
        assert "expected a consumer that has a position, of projector, got projecter" in ran.err
    assert await rig.connection.fetchval(POSITION, SITES, 0) is None


async def set_while(rig: Rig, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], Awaitable[object]]) -> Ran:
    """Decide to move a position from 3 to the start, while something else happens to it."""
    await rig.connection.execute(STAND, SITES, 0, 3)
    loop = asyncio.get_running_loop()

    async def happen() -> None:
        await meanwhile()

    def confirm(*_: object, **__: object) -> bool:
        asyncio.run_coroutine_threadsafe(happen(), loop).result()
        return True

    monkeypatch.setattr(typer, "confirm", confirm)
    return await sitelog(config(rig), "position", "set", SITES, "0", "start", *WHY)


async def test_a_position_that_another_moves_while_one_decides_is_left_alone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Reposition(PROJECTOR, SITES, 0, 2, "another", "what is left")

    ran = await set_while(rig, monkeypatch, lambda: reposition(rig.connection, other))

    assert "projector in customer-sites-events[0]: 3 → 0" in ran.out
    assert ran.code == 70
    assert "has been moved meanwhile, from 3 to 2 by another (what is left): nothing was changed" in ran.err
    assert await rig.connection.fetchval(POSITION, SITES, 0) == 2
    assert len(await rig.connection.fetch(CHANGES)) == 1


async def test_a_worker_may_claim_and_go_on_while_one_decides(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = await set_while(rig, monkeypatch, lambda: rig.connection.execute(STAND, SITES, 0, 9))

    assert ran.code == 0, ran.err
    assert await rig.connection.fetchval(POSITION, SITES, 0) == 0
    assert [row[0] for row in await rig.connection.fetch(CHANGES)] == [9]
