"""Refusing rather than guessing: a worker that would mix up topics, databases or decisions doesn't start, or stops."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from sitelog.deploy._database import drop_database, ensure_database
from sitelog.projections._install import install
from sitelog.streams._kafka import kafka_client_options
from sitelog.streams.append import Appender
from sitelog.streams.errors import Halt
from sitelog.streams.events import SiteCreated, SiteValues
from sitelog.streams.settings import Settings, TopicSettings
from tests.conftest import Services, recreate_topics
from tests.rig import Rig, config_values, open_rig, write_config
from tests.until import until
from tests.worker_process import WorkerProcess

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kafka")]

TOPIC = "customer-sites-events"
EXIT_UNAVAILABLE, EXIT_BEYOND, EXIT_TOPICS, EXIT_GROUP = 69, 73, 79, 80

READ_ANOTHER_TOPIC = """
WITH partition AS (
    INSERT INTO sitelog.log_partition VALUES (99, 'audit-events', 0) RETURNING log_partition
)
INSERT INTO sitelog.consumer_position
    (consumer, log_partition, next_offset, log_seq, epoch, generation, owner, updated_at)
SELECT 'projector', log_partition, 5, 0, 1, 0, 'this test', now()
FROM partition
"""

SITES = 60
METADATA_SECONDS = 2
"""How often a worker asks for the number of partitions; 30 where nobody says otherwise."""


@pytest.fixture
async def rig(services: Services, database_template: str) -> AsyncIterator[Rig]:
    async with open_rig(services, database_template) as rig:
        yield rig


async def refusal(rig: Rig, exit_code: int, values: dict[str, Any], command: tuple[str, ...]) -> str:
    """Run a command on this configuration, and return the one line that it ends with."""
    config = write_config(rig.services, values)
    process = WorkerProcess(rig.services.folder, f"refused-{uuid.uuid4().hex}", config, command=command)
    await process.start()
    assert await process.ends(60) == exit_code, process.text()
    assert "Traceback" not in process.text()
    (line,) = [line for line in process.text().splitlines() if line.startswith("error: ")]
    return line.removeprefix("error: ")


def with_partitions(settings: Settings, number: int) -> Settings:
    """The settings of somebody who has more or fewer partitions in mind."""
    topics = settings.kafka_config.topics | {TOPIC: TopicSettings(partitions=number, replication_factor=1)}
    kafka = settings.kafka_config.model_copy(update={"topics": topics})
    return settings.model_copy(update={"kafka_config": kafka})


async def add_partitions(settings: Settings, number: int) -> None:
    admin = AIOKafkaAdminClient(**kafka_client_options(settings))
    await admin.start()
    try:
        await admin.create_partitions({TOPIC: NewPartitions(number)})
    finally:
        await admin.close()


async def fill(rig: Rig) -> None:
    """Let the running worker apply events of every partition."""
    async with Appender(rig.settings) as appender:
        for number in range(SITES):
            await appender.append(SiteCreated(site_id=f"site-{number}", site_data=SiteValues()))

    async def applied() -> bool:
        return await rig.log_rows() == SITES

    await until("the sites", applied)


async def test_partitions_that_are_added_while_a_worker_runs_end_it(rig: Rig) -> None:
    worker = await rig.worker(metadata_max_age_seconds=METADATA_SECONDS)

    await add_partitions(rig.settings, 7)
    try:
        assert await worker.ends(METADATA_SECONDS + 30) == EXIT_TOPICS, worker.text()
    finally:
        await recreate_topics(rig.settings)

    assert worker.said("customer-sites-events[6] is not in sitelog.log_partition: the topic has more partitions than")


async def test_a_topic_that_is_created_again_under_a_running_worker_ends_it(rig: Rig) -> None:
    worker = await rig.worker(metadata_max_age_seconds=METADATA_SECONDS)
    await fill(rig)

    await recreate_topics(rig.settings)

    assert await worker.ends(METADATA_SECONDS + 30) == EXIT_BEYOND, worker.text()
    said = [line["message"] for line in worker.log() if line["level"] == "critical"]
    assert "is beyond the topic's end 0: the topic was " in said[-1]
    again = await rig.launch()
    assert await again.ends(60) == EXIT_BEYOND


@pytest.mark.parametrize("number", [5, 8])
async def test_a_topic_that_is_there_again_with_other_partitions_is_refused_though_the_configuration_agrees(
    rig: Rig, number: int
) -> None:
    worker = await rig.worker()
    await fill(rig)
    await worker.stop()
    values = config_values(rig.services, rig.database)
    values["kafka_config"]["topics"][TOPIC]["partitions"] = number
    await recreate_topics(with_partitions(rig.settings, number))
    try:
        said = await refusal(rig, EXIT_TOPICS, values, ("worker", "projector"))
    finally:
        await recreate_topics(rig.settings)

    assert f"topic {TOPIC}: expected 6 partitions, as the database was filled from, found {number} in" in said
    if number > 6:  # what would have let it in
        with pytest.raises(Halt, match="expected 6 partitions"):
            await install(with_partitions(rig.settings, number))


async def test_a_topic_that_the_configuration_forgets_is_refused(rig: Rig) -> None:
    await rig.connection.execute(READ_ANOTHER_TOPIC)

    said = await refusal(rig, EXIT_TOPICS, config_values(rig.services, rig.database), ("worker", "projector"))

    assert said.startswith("topic audit-events: the database holds events of it, kafka_config.topics doesn't name it")


async def test_a_worker_with_another_conflict_policy_is_refused_and_the_others_go_on(rig: Rig) -> None:
    worker = await rig.worker(conflict_policy="last_write_wins")

    values = config_values(rig.services, rig.database, conflict_policy="reject")
    said = await refusal(rig, EXIT_GROUP, values, ("worker", "projector"))

    assert "expected members with worker.conflict_policy reject, found one with last_write_wins" in said
    assert "end them all first" in said
    assert await worker.answer("/readyz", 200)


@pytest.mark.parametrize("arguments", [("retry", "--all"), ("discard", "1", "--reason", "it is no event")])
async def test_who_moves_parked_events_with_another_conflict_policy_is_refused(
    rig: Rig, arguments: tuple[str, ...]
) -> None:
    await rig.worker(conflict_policy="last_write_wins")

    values = config_values(rig.services, rig.database, conflict_policy="reject")
    said = await refusal(rig, EXIT_GROUP, values, ("parked", *arguments))

    assert "expected members with worker.conflict_policy reject, found one with last_write_wins" in said


async def test_nobody_moves_parked_events_while_kafka_cant_say_who_is_in_the_group(rig: Rig) -> None:
    values = config_values(rig.services, rig.database)
    values["kafka_config"]["bootstrap_servers"] = ["127.0.0.1:1"]

    said = await refusal(rig, EXIT_UNAVAILABLE, values, ("parked", "retry", "--all"))

    assert said.startswith("Kafka can't be reached")


async def test_a_policy_can_be_changed_once_all_workers_have_ended(rig: Rig) -> None:
    await (await rig.worker(conflict_policy="last_write_wins")).stop()

    await rig.worker(conflict_policy="reject")


async def test_a_worker_for_another_database_is_refused_and_the_others_go_on(rig: Rig, database_template: str) -> None:
    worker = await rig.worker()
    copy = f"copy_{uuid.uuid4().hex}"
    await ensure_database(rig.services.state, name=copy, template=database_template)
    try:
        said = await refusal(rig, EXIT_GROUP, config_values(rig.services, copy), ("worker", "projector"))
    finally:
        await drop_database(rig.services.state, copy)

    assert f"expected members that fill the database {copy}@" in said
    assert f"found one that fills {rig.database}@" in said
    assert await worker.answer("/readyz", 200)
