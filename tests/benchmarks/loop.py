"""A loop by hand around aiokafka: as fast as one gets without a framework, with no one else in its partitions."""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import typer
from aiokafka import AIOKafkaConsumer, TopicPartition

from sitelog.projections._database import connect
from sitelog.streams._kafka import kafka_client_options
from sitelog.streams.settings import Settings, load_settings
from tests.benchmarks.latest import POSITION_SQL, UPSERT_SQL, Latest, Reader
from tests.benchmarks.same_writes import SameWrites

TOPIC = "customer-sites-events"
FETCH_BYTES_MAX = 4 * 1_048_576
POLL_MS = 500


class Writer(Protocol):
    """What a fetch is given to, within a transaction."""

    async def positions(self) -> Mapping[int, int]:
        """The next offset of every partition that was ever written."""

    async def write(self, fetched: Mapping[int, Sequence[Any]]) -> None:
        """Write the records of each partition, and where they end."""


class LatestState:
    """Only the latest state, and the position."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._reader = Reader()

    async def positions(self) -> Mapping[int, int]:
        return dict(await self._connection.fetch("SELECT partition, next_offset FROM public.latest_position"))

    async def write(self, fetched: Mapping[int, Sequence[Any]]) -> None:
        latest = Latest()
        for records in fetched.values():
            for record in records:
                latest.take(*self._reader.read(record.value))
        await self._connection.execute(UPSERT_SQL, *latest.arrays())
        ends = [(partition, records[-1].offset + 1) for partition, records in fetched.items()]
        await self._connection.executemany(POSITION_SQL, ends)


async def consume(settings: Settings, writer_class: Any, records_max: int) -> None:
    connection = await connect(settings.database_config.primary, application="loop")
    writer: Writer = writer_class(connection)
    consumer = AIOKafkaConsumer(
        enable_auto_commit=False,
        max_partition_fetch_bytes=FETCH_BYTES_MAX,
        **kafka_client_options(settings),
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(TOPIC, n) for n in range(settings.kafka_config.topics[TOPIC].partitions)]
        consumer.assign(partitions)
        begun = await writer.positions()
        for partition in partitions:
            consumer.seek(partition, begun.get(partition.partition, 0))
        while True:
            fetched = await consumer.getmany(timeout_ms=POLL_MS, max_records=records_max)
            if fetched:
                async with connection.transaction():
                    await writer.write({tp.partition: records for tp, records in fetched.items()})
    finally:
        await consumer.stop()
        await connection.close()


async def until_terminated(settings: Settings, writer_class: Any, records_max: int) -> None:
    task = asyncio.create_task(consume(settings, writer_class, records_max))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


def main(
    config: Annotated[Path, typer.Option()],
    writes: Annotated[Literal["latest", "same"], typer.Option()] = "latest",
    records_max: Annotated[int, typer.Option()] = 5_000,
) -> None:
    writer_class = {"latest": LatestState, "same": SameWrites}[writes]
    asyncio.run(until_terminated(load_settings(config, {}), writer_class, records_max))


if __name__ == "__main__":
    typer.run(main)
