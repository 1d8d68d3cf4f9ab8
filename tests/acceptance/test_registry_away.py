"""A schema registry that is away: only the partition waits that has an event of a schema that nobody knows yet."""

from itertools import islice

import pytest

from sitelog.deploy._ports import free_port
from sitelog.streams._kafka_settings import SchemaRegistrySettings
from sitelog.streams.codec import Codec
from sitelog.streams.examples import example
from sitelog.streams.registry import SchemaRegistry
from tests.chaos.network import Link
from tests.conftest import Services
from tests.lives import Lives
from tests.registry_server import running_registry
from tests.rig import open_rig
from tests.until import until

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kafka")]


async def test_one_schema_that_nobody_knows_holds_up_its_own_partition_alone(
    services: Services, database_template: str
) -> None:
    async with (
        running_registry() as server,
        SchemaRegistry(SchemaRegistrySettings(url=server.url)) as registry,
        open_rig(services, database_template) as rig,
    ):
        codec = Codec(registry)
        await codec.register()
        link = Link(free_port(besides=set()), int(server.url.rpartition(":")[2]))
        url = f"http://127.0.0.1:{link.port}"  # nobody listens there yet
        worker = await rig.worker(stuck_after_seconds=5, environ={"SITELOG__KAFKA_CONFIG__SCHEMA_REGISTRY__URL": url})
        unknown = await rig.ledger.append(example("site_created", site_id="framed"), codec)
        await unknown.answer
        lives = Lives(1)
        for _ in range(3):
            await rig.ledger.append_all(islice(lives, 1_000))
            await until(
                "all other partitions", lambda: rig.ledger.is_applied(rig.connection, but=unknown.place), seconds=30
            )
        answer = await worker.get("/readyz")
        assert (answer.status_code, answer.json()["detail"].split(": GET")[0]) == (
            503,
            f"{unknown.place[0]}[{unknown.place[1]}]: schema registry {url}",
        )
        assert not await rig.ledger.is_applied(rig.connection)
        assert (await worker.get("/livez")).status_code == 200
        await link.open()
        try:
            await rig.check()
            await worker.ready()
        finally:
            await link.close()
