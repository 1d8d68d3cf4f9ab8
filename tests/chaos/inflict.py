"""How each kind of fault is done, and undone."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from tests.chaos.cluster import Cluster
from tests.chaos.producer import Producer
from tests.chaos.schedule import Fault
from tests.chaos.worker import Worker

CUTS_MAX = 12
HELD_SECONDS = 0.5
LOCK = "LOCK TABLE public.customer_sites_v1 IN EXCLUSIVE MODE"
CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class World:
    """What faults may be done to; `database` is the workers'."""

    cluster: Cluster
    database: str
    workers: Sequence[Worker]
    producers: Sequence[Producer]


@asynccontextmanager
async def worker_killed(world: World, fault: Fault) -> AsyncIterator[None]:
    await world.workers[fault.target].kill()
    yield
    world.workers[fault.target].start()


@asynccontextmanager
async def worker_terminated(world: World, fault: Fault) -> AsyncIterator[None]:
    ending = asyncio.create_task(world.workers[fault.target].terminate())
    yield
    await ending
    world.workers[fault.target].start()


@asynccontextmanager
async def worker_frozen(world: World, fault: Fault) -> AsyncIterator[None]:
    world.workers[fault.target].freeze()
    yield
    world.workers[fault.target].thaw()


@asynccontextmanager
async def worker_zombie(world: World, fault: Fault) -> AsyncIterator[None]:
    worker, link = world.workers[fault.target], world.cluster.ways[fault.target].postgres
    link.silence()
    # Long enough for a batch to be on its way; if there is none, this is a worker that was frozen and no more.
    await asyncio.sleep(HELD_SECONDS)
    worker.freeze()
    yield
    link.resume()
    worker.thaw()


@asynccontextmanager
async def worker_joins(world: World, fault: Fault) -> AsyncIterator[None]:
    world.workers[fault.target].start()
    yield
    await world.workers[fault.target].terminate()


@asynccontextmanager
async def broker_killed(world: World, fault: Fault) -> AsyncIterator[None]:
    await world.cluster.kill_broker(fault.target)
    yield
    await world.cluster.start_brokers()


@asynccontextmanager
async def postgres_killed(world: World, _: Fault) -> AsyncIterator[None]:
    await world.cluster.kill_postgres()
    yield
    await world.cluster.start_postgres()


@asynccontextmanager
async def postgres_slow(world: World, fault: Fault) -> AsyncIterator[None]:
    for ways in world.cluster.ways:
        ways.postgres.slow(0.02 + 0.18 * fault.amount)
    yield
    for ways in world.cluster.ways:
        ways.postgres.slow(0)


@asynccontextmanager
async def postgres_locked(world: World, _: Fault) -> AsyncIterator[None]:
    connection = await world.cluster.connect(world.database)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await connection.execute("BEGIN")
            await connection.execute(LOCK)
        yield
    finally:
        connection.terminate()


@asynccontextmanager
async def postgres_cut(world: World, fault: Fault) -> AsyncIterator[None]:
    for ways in world.cluster.ways:
        ways.postgres.cut_transactions(1 + round(CUTS_MAX * fault.amount))
    yield
    for ways in world.cluster.ways:
        ways.postgres.cut_transactions(0)


@asynccontextmanager
async def commit_unanswered(world: World, fault: Fault) -> AsyncIterator[None]:
    for ways in world.cluster.ways:
        ways.postgres.lose_answers(1 + round(CUTS_MAX * fault.amount))
    yield
    for ways in world.cluster.ways:
        ways.postgres.lose_answers(0)


@asynccontextmanager
async def postgres_silent(world: World, fault: Fault) -> AsyncIterator[None]:
    link = world.cluster.ways[fault.target].postgres
    link.silence()
    yield
    if fault.amount < 0.5:
        link.reset()
    link.resume()


@asynccontextmanager
async def disk_full(world: World, _: Fault) -> AsyncIterator[None]:
    await asyncio.to_thread(world.cluster.disk.fill)
    yield
    await asyncio.to_thread(world.cluster.disk.free)
    await world.cluster.start_postgres()  # it ends itself where not even its own log finds room


@asynccontextmanager
async def kafka_slow(world: World, fault: Fault) -> AsyncIterator[None]:
    links = world.cluster.ways[fault.target].kafka
    for link in links:
        link.slow(0.05 + 0.45 * fault.amount)
    yield
    for link in links:
        link.slow(0)


@asynccontextmanager
async def kafka_cut(world: World, fault: Fault) -> AsyncIterator[None]:
    links = world.cluster.ways[fault.target].kafka
    for link in links:
        link.cut()
    yield
    for link in links:
        link.mend()


@asynccontextmanager
async def kafka_silent(world: World, fault: Fault) -> AsyncIterator[None]:
    links = world.cluster.ways[fault.target].kafka
    for link in links:
        link.silence()
    yield
    for link in links:
        if fault.amount < 0.5:
            link.reset()
        link.resume()


@asynccontextmanager
async def sent_twice(world: World, _: Fault) -> AsyncIterator[None]:
    for producer in world.producers:
        producer.repeats = True
    yield
    for producer in world.producers:
        producer.repeats = False


@asynccontextmanager
async def sent_reordered(world: World, _: Fault) -> AsyncIterator[None]:
    for producer in world.producers:
        producer.reorders = True
    yield
    for producer in world.producers:
        producer.reorders = False


Inflict = Callable[[World, Fault], AbstractAsyncContextManager[None]]

INFLICT: Mapping[str, Inflict] = {
    do.__name__: do
    for do in (
        worker_killed,
        worker_terminated,
        worker_frozen,
        worker_zombie,
        worker_joins,
        broker_killed,
        postgres_killed,
        postgres_slow,
        postgres_locked,
        postgres_cut,
        commit_unanswered,
        postgres_silent,
        disk_full,
        kafka_slow,
        kafka_cut,
        kafka_silent,
        sent_twice,
        sent_reordered,
    )
} | {"worker_leaves": worker_terminated}
