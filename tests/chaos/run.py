"""One run: a cluster of its own, workers, producers, the schedule of a seed, and what the checker says in the end."""

import asyncio
import shutil
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic

from sitelog.deploy._configuration import configuration
from sitelog.deploy._database import ensure_database
from sitelog.deploy._state import DATABASE
from sitelog.projections._install import install
from sitelog.streams.settings import Settings
from sitelog.streams.topics import create_topics
from tests.chaos.checker import check
from tests.chaos.cluster import Cluster, open_cluster
from tests.chaos.crew import open_crew
from tests.chaos.evidence import gather, read_ends
from tests.chaos.inflict import World
from tests.chaos.met import marks
from tests.chaos.outcome import Outcome, named
from tests.chaos.producer import Place, Producer
from tests.chaos.progress import Observer, recoveries, standstills
from tests.chaos.schedule import plan
from tests.chaos.strike import Striker

PRODUCERS = 2
FIRST_SECONDS_MAX = 60.0
LEVEL_SECONDS_MAX = 120.0
"""From the last healing until everything in the topics is applied."""

OVERHEAD_SECONDS_MAX = 420.0
LOOK_SECONDS = 0.1

WRONG = Path(__file__).parents[2] / "build" / "chaos"
"""Where the logs of runs that aren't right are kept: the same seed may well be right the next time."""

POSTGRES = (
    # The disk is a small one: what the write-ahead log no longer needs is to go soon.
    "ALTER SYSTEM SET checkpoint_timeout = '30s'",
    # Temporary tables tell how rows were written.
    "ALTER SYSTEM SET log_statement = 'ddl'",
    "SELECT pg_reload_conf()",
)


async def run(
    seed: int,
    seconds: float,
    kinds: list[str],
    *,
    per_second: float,
    say: Callable[[str], None],
    alone: bool = False,
    logs: Path | None = None,
) -> Outcome:
    """Do the schedule of a seed, and return its outcome, also where it hangs or breaks off.

    `logs`: copy what everybody wrote to this folder; of a run that isn't right, to one below WRONG in any case.
    """
    outcome = Outcome(plan(seed, seconds, kinds, alone=alone))
    try:
        async with asyncio.timeout(seconds + OVERHEAD_SECONDS_MAX), open_cluster() as cluster:
            if not cluster.disk.can_be_full:
                outcome.leave_out("disk_full")
            try:
                await _run(cluster, outcome, per_second, say)
            finally:
                if not outcome.is_right:
                    logs = logs or WRONG / str(seed)
                    say(f"what everybody wrote is in {logs}")
                if logs is not None:
                    await asyncio.to_thread(shutil.copytree, cluster.folder / "logs", logs, dirs_exist_ok=True)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this run's outcome, and the next one goes on
        say("".join(traceback.format_exception(error)))
        outcome.error = named(error)
    return outcome


async def _run(cluster: Cluster, outcome: Outcome, per_second: float, say: Callable[[str], None]) -> None:
    settings = await _prepare(cluster)
    topics = {name: topic.partitions for name, topic in settings.kafka_config.topics.items()}
    schedule = outcome.schedule
    producers = [
        Producer(schedule.seed * PRODUCERS + number, f"producer {number}", cluster.state.bootstrap_servers)
        for number in range(PRODUCERS)
    ]
    observer = Observer(lambda: cluster.connect(DATABASE), lambda: _acknowledged(producers))
    async with open_crew(cluster, schedule.crew) as workers, _in_background(observer.observe()):
        for worker in workers[: schedule.crew.members]:
            worker.start()
        async with _producing(producers, per_second):
            if not await _until(observer.is_under_way, FIRST_SECONDS_MAX):
                raise TimeoutError(f"the first events weren't applied within {FIRST_SECONDS_MAX:g} s")
            striker = Striker(World(cluster, DATABASE, workers, producers), schedule, say, outcome.without_effect)
            strikes = await striker.strike()
            healed = monotonic()
        ends = await read_ends(cluster.state.bootstrap_servers, topics)
        if await _until(lambda: observer.is_level(ends), LEVEL_SECONDS_MAX):
            outcome.level_seconds = monotonic() - healed
        connection = await cluster.connect(DATABASE)
        outcome.marks = await marks(cluster, workers, connection)
    sends = [send for producer in producers for send in producer.sends]
    evidence = await gather(cluster.state.bootstrap_servers, topics, connection)
    await connection.close()
    outcome.violations = await asyncio.to_thread(check, sends, evidence)
    outcome.events = len({send.event_id for send in sends})
    outcome.repeats = len(sends) - outcome.events
    outcome.acknowledged = len({send.event_id for send in sends if send.acknowledged})
    outcome.recoveries = recoveries(strikes, standstills(observer.samples))
    for worker in workers:
        outcome.ended += worker.ended
        outcome.stopped += [code for code, _ in worker.answers]
        outcome.stop_seconds_max = max([outcome.stop_seconds_max, *(seconds for _, seconds in worker.answers)])


def _acknowledged(producers: list[Producer]) -> Counter[Place]:
    """Return the offset after the last acknowledged record of each partition."""
    ends: Counter[Place] = Counter()
    for producer in producers:
        ends |= producer.ends  # the larger of both
    return ends


async def _prepare(cluster: Cluster) -> Settings:
    """Make the database and the topics, and return the settings of somebody who connects directly."""
    settings = Settings.model_validate(configuration(cluster.state))
    connection = await cluster.connect()
    for statement in POSTGRES:
        await connection.execute(statement)
    await connection.close()
    await ensure_database(cluster.state)
    await install(settings)
    await create_topics(settings)
    return settings


@asynccontextmanager
async def _producing(producers: list[Producer], per_second: float) -> AsyncIterator[None]:
    """Events come while the block runs; at its end all that Kafka takes are acknowledged."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for producer in producers:
            group.create_task(producer.produce(per_second / len(producers), over))
        try:
            yield
        finally:
            over.set()


@asynccontextmanager
async def _in_background(doing: Coroutine[object, object, object]) -> AsyncIterator[None]:
    task = asyncio.create_task(doing)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _until(look: Callable[[], bool], seconds: float) -> bool:
    """Wait until a look says yes; return whether it ever did."""
    deadline = monotonic() + seconds
    while monotonic() < deadline:
        if look():
            return True
        await asyncio.sleep(LOOK_SECONDS)
    return False
