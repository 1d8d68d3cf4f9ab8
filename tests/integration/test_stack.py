"""`sitelog up` and its kin on real brokers and a real Postgres."""

import asyncio
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from sitelog.deploy._daemon import Daemon
from sitelog.deploy._ports import free_port
from sitelog.deploy._state import read_state, write_state
from sitelog.deploy._workers import start_workers, stop_workers
from sitelog.deploy.stack import Stack, Wanted
from sitelog.deploy.status import status
from sitelog.streams.errors import UnavailableError
from sitelog.streams.settings import load_settings
from tests.conftest import watched_folder

pytestmark = pytest.mark.services
NO_WORKERS = Wanted(workers=0)
ENVIRON = {
    **os.environ,
    # Seven brokers are started here and none lives long: the quick compiler alone saves a third of their start.
    "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1",
    # Not all who start a stack have a locale with more letters than ASCII's.
    "LC_ALL": "C",
    # A variable left over from work on another cluster must not make `up` touch that one.
    "SITELOG__KAFKA_CONFIG__BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "SITELOG__DATABASE_CONFIG__PRIMARY__PORT": "1",
}


@pytest.fixture(scope="module")
def stack():
    with watched_folder() as folder:
        yield Stack(folder / "Bücher \\", ENVIRON, print)


@pytest.fixture
def other_stack():
    with watched_folder() as folder:
        yield Stack(folder / "stack", ENVIRON, print)


async def pids(stack):
    return {service.name: service.pid for service in await status(stack.folder)}


async def states(stack):
    return {service.name: service.state for service in await status(stack.folder)}


async def kill(stack, name):
    """Kill one service and return when it is gone."""
    os.kill((await pids(stack))[name], signal.SIGKILL)
    async with asyncio.timeout(10):
        while (await states(stack))[name] != "dead":  # noqa: ASYNC110 - a dead process tells nobody
            await asyncio.sleep(0.02)


async def append_and_insert(settings):
    """Leave something in Kafka and in Postgres."""
    servers = settings.kafka_config.bootstrap_servers
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        await producer.send_and_wait("territory-events", b"still there", partition=0)
    connection = await owner_connection(settings)
    await connection.execute("CREATE TABLE still_there (answer int); INSERT INTO still_there VALUES (42)")
    await connection.close()


async def what_is_there(settings):
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_config.bootstrap_servers)
    await consumer.start()
    partition = TopicPartition("territory-events", 0)
    consumer.assign([partition])
    await consumer.seek_to_beginning(partition)
    record = await asyncio.wait_for(consumer.getone(), 20)
    await consumer.stop()
    connection = await owner_connection(settings)
    answer = await connection.fetchval("SELECT answer FROM still_there")
    await connection.close()
    return record.value, answer


async def owner_connection(settings):
    primary, owner = settings.database_config.primary, settings.database_config.owner
    return await asyncpg.connect(
        host=primary.host,
        port=primary.port,
        database=primary.database,
        user=owner.username,
        password=owner.password.get_secret_value(),
        ssl=False,
    )


def mapped(pid: int) -> str:
    """The files that a process has mapped into its memory."""
    return Path(f"/proc/{pid}/maps").read_text()


async def test_a_second_up_is_harmless_and_data_survives_down_and_up(stack):
    config = await stack.up(NO_WORKERS)
    settings = load_settings(config, {})
    assert await states(stack) == {"kafka-1": "up", "postgres": "up"}
    await append_and_insert(settings)
    before = await pids(stack)
    assert "/classes-" in mapped(before["kafka-1"]), "the broker was started without the archive of classes"

    assert await stack.up(Wanted()) == config
    assert await pids(stack) == before

    assert await stack.down() == ["kafka-1", "postgres"]
    assert await states(stack) == {"kafka-1": "down", "postgres": "down"}
    assert await stack.down() == []

    await stack.up(Wanted())
    assert load_settings(config, {}) == settings
    assert await what_is_there(settings) == (b"still there", 42)


async def test_a_killed_broker_and_a_killed_postgres_are_seen_and_started_again(stack):
    await stack.up(NO_WORKERS)
    await kill(stack, "kafka-1")
    await kill(stack, "postgres")
    for service in await status(stack.folder):
        assert service.state == "dead"
        assert "run `sitelog up`" in service.detail
    settings = load_settings(await stack.up(Wanted()), {})
    assert await states(stack) == {"kafka-1": "up", "postgres": "up"}
    assert settings.kafka_config.bootstrap_servers


async def test_a_frozen_postgres_is_shown_as_running_without_answering(stack):
    await stack.up(NO_WORKERS)
    pid = (await pids(stack))["postgres"]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert (await states(stack))["postgres"] == "busy"
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_shell_that_sources_the_environment_file_can_connect(stack):
    await stack.up(NO_WORKERS)
    program = (
        "import asyncio, asyncpg, os\n"
        "async def main():\n"
        "    for connection in (await asyncpg.connect(), await asyncpg.connect(os.environ['DATABASE_URL'])):\n"
        "        print(await connection.fetchval('SELECT current_user'))\n"
        "        await connection.close()\n"
        "asyncio.run(main())"
    )
    shell = await asyncio.create_subprocess_exec(
        "sh", "-c", '. "$1" && exec "$2" -c "$3"', "sh", stack.folder / "env", sys.executable, program,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await shell.communicate()
    assert output.decode().split() == ["app_user", "app_user"]


async def test_a_killed_worker_heals_by_itself_and_so_does_one_whose_supervisor_was_killed(stack):
    await stack.up(Wanted(workers=1))
    killed = (await pids(stack))["projector-1"]
    os.kill(killed, signal.SIGKILL)
    async with asyncio.timeout(30):
        while (await states(stack))["projector-1"] != "up":  # noqa: ASYNC110 - /readyz can only be asked
            await asyncio.sleep(0.1)
    orphan = (await pids(stack))["projector-1"]
    assert orphan != killed
    assert "restarts: 1, last ended with status -9" in (await status(stack.folder))[-1].detail

    os.kill(Daemon(stack.folder, "projector-1").running().pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        # A killed process counts as running until its last thread has ended.
        while (await states(stack))["projector-1"] != "dead":  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.05)
    await stack.up(Wanted())
    assert (await states(stack))["projector-1"] == "up"
    assert not is_alive(orphan)


def is_alive(pid):
    """Tell whether a process runs; one that only waits for its parent to ask after it doesn't."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def test_workers_come_and_go_with_the_number_asked_for_and_all_end_with_down(stack):
    await stack.up(Wanted(workers=1))
    await stack.up(Wanted(workers=2))
    workers = [service for service in await status(stack.folder) if service.kind == "worker"]
    assert [(worker.name, worker.state) for worker in workers] == [("projector-1", "up"), ("projector-2", "up")]
    await stack.up(Wanted(workers=1))
    assert not is_alive(workers[1].pid)
    assert await stack.down() == ["kafka-1", "postgres", "projector-1"]
    assert not is_alive(workers[0].pid)


async def test_a_worker_that_dies_while_starting_is_reported_with_its_last_lines(stack):
    await stack.up(NO_WORKERS)
    with socket.create_server(("127.0.0.1", 0)) as server:
        state = read_state(stack.folder)
        state.worker_ports = [server.getsockname()[1]]
        write_state(stack.folder, state)
        with pytest.raises(UnavailableError, match="worker projector-1 can't listen"):
            await stack.up(Wanted())
    await stack.up(NO_WORKERS)
    connection = await owner_connection(load_settings(stack.folder / "sitelog.yaml", {}))
    await connection.execute("UPDATE sitelog.schema_version SET version = 999")
    with pytest.raises(UnavailableError, match=r"projector-1 ended while starting(.|\n)*version 999"):
        await start_workers(stack.folder, [free_port(besides=set())], stack.folder / "sitelog.yaml", os.environ)
    await connection.execute("UPDATE sitelog.schema_version SET version = 1")
    await connection.close()
    stop_workers(stack.folder)


async def test_reset_begins_anew(stack):
    settings = load_settings(await stack.up(NO_WORKERS), {})
    password = settings.database_config.primary.password
    await stack.reset()
    assert await status(stack.folder) is None
    settings = load_settings(await stack.up(NO_WORKERS), {})
    assert settings.database_config.primary.password != password
    connection = await owner_connection(settings)
    assert await connection.fetchval("SELECT to_regclass('still_there')") is None
    await connection.close()


async def test_a_port_in_use_is_named_with_the_option_that_chooses_another(other_stack):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UnavailableError, match=rf"Kafka broker 1 can't listen on 127.0.0.1:{port}.*--kafka-port"):
            await other_stack.up(replace(NO_WORKERS, kafka_port=port))


async def test_without_java_up_says_what_to_install_and_goes_on_once_it_is_there(other_stack, tmp_path):
    poor = Stack(other_stack.folder, {**ENVIRON, "PATH": path_without("java", tmp_path)}, print)
    with pytest.raises(UnavailableError, match="no `java` on the PATH"):
        await poor.up(NO_WORKERS)
    assert (await states(poor))["kafka-1"] == "down"


def path_without(program, folder):
    """Return a PATH of links to everything that the present one finds, but for one program."""
    for place in reversed(os.environ["PATH"].split(":")):
        for found in os.scandir(place) if os.path.isdir(place) else ():  # noqa: PTH112 - scandir's counterpart
            link = folder / found.name
            if found.name != program and not link.is_symlink():
                link.symlink_to(found.path)
    return str(folder)


async def test_a_full_disk_is_refused_before_anything_starts(other_stack):
    with pytest.raises(UnavailableError, match="Free some space"):
        await other_stack.up(replace(NO_WORKERS, free_bytes_min=1 << 60))
    assert await status(other_stack.folder) is None


async def test_three_brokers_keep_three_copies_and_one_may_die(other_stack):
    stack = other_stack
    settings = load_settings(await stack.up(replace(NO_WORKERS, brokers=3)), {})
    servers = settings.kafka_config.bootstrap_servers
    assert len(servers) == 3
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    topics = await admin.describe_topics(sorted(settings.kafka_config.topics))
    await admin.close()
    copies = [len(partition["replicas"]) for topic in topics for partition in topic["partitions"]]
    assert copies == [3] * 9

    await kill(stack, "kafka-2")
    async with AIOKafkaProducer(bootstrap_servers=servers, acks="all") as producer:
        for partition in range(3):
            await asyncio.wait_for(producer.send_and_wait("territory-events", b"x", partition=partition), 30)
    assert (await states(stack)) == {"kafka-1": "up", "kafka-2": "dead", "kafka-3": "up", "postgres": "up"}
