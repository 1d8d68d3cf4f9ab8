"""Passwords stay where they belong: in no output, log, error, metric or repr, whatever goes well or wrong."""

import base64
import gc
import logging
import os
import uuid
import warnings
from collections.abc import AsyncIterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from sitelog.deploy._configuration import configuration
from sitelog.deploy._database import ensure_database
from sitelog.deploy._state import new_state, write_private, write_state
from sitelog.streams._kafka import faust_credentials
from sitelog.streams.registry import SchemaRegistry
from sitelog.streams.settings import Settings
from tests.commands import sitelog
from tests.conftest import watched_folder
from tests.ports import CLOSED_PORT
from tests.registry_server import running_registry
from tests.secure_kafka import start_secure_kafka
from tests.secure_postgres import SecurePostgres
from tests.until import until
from tests.worker_process import WorkerProcess

pytestmark = [pytest.mark.services, pytest.mark.timeout(400)]

# Two of each: the right ones, and those that are refused.
SECRETS = {
    f"{who}{kind}": f"{kind}-{uuid.uuid4().hex}"
    for who in ("app", "read", "owner", "kafka", "registry")
    for kind in ("right", "wrong")
}
SITE = '{"type": "site_created", "site_id": "site-1", "site_data": {"name": "Depot"}}\n'


@dataclass
class Stage:
    """A stack that lets nobody in without a password. `printed` is all that was ever said by whom."""

    folder: Path
    values: dict[str, Any]
    printed: dict[str, str] = field(default_factory=dict)

    def config(self, *path: str, value: object = None) -> Path:
        """Write the configuration, one value of it replaced."""
        values: dict[str, Any] = deepcopy(self.values)
        *sections, last = path or ("kafka_config", "security_protocol")
        section = values
        for name in sections:
            section = section[name]
        section[last] = value if path else section[last]
        file = self.folder / f"{uuid.uuid4().hex}.yaml"
        write_private(file, yaml.safe_dump(values))
        return file

    async def run(self, config: Path, line: str) -> int:
        events = self.folder / "site.jsonl"
        events.write_text(SITE)
        ran = await sitelog(config, *line.replace("FILE", str(events)).split())
        with warnings.catch_warnings():
            # asyncio has no turn left to close a refused connection's TLS where a command ends right after it.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        self.printed[f"{line} {len(self.printed)}: exit {ran.code}"] = ran.out + ran.err
        return ran.code

    def shown(self) -> list[str]:
        """Every secret that can be read in what was printed, in clear or as HTTP sends it, and where."""
        disguises = {name: [secret] for name, secret in SECRETS.items()}
        for kind in ("right", "wrong"):
            name = f"registry{kind}"
            disguises[name].append(base64.b64encode(f"service:{SECRETS[name]}".encode()).decode())
        return [
            f"{name} in {where}"
            for where, text in self.printed.items()
            for name, looks in disguises.items()
            if any(look in text for look in looks)
        ]


@pytest.fixture
def stage(whole_stage: Stage) -> Stage:
    """The stack, with nothing said yet."""
    return replace(whole_stage, printed={})


@pytest.fixture(scope="module")
async def whole_stage() -> AsyncIterator[Stage]:
    with watched_folder() as folder:
        roles = {f"{who}_password": SecretStr(SECRETS[f"{who}right"]) for who in ("app", "read", "owner")}
        state = new_state(brokers=1).model_copy(update=roles)
        write_state(folder, state)
        postgres = SecurePostgres(folder, state)
        await postgres.start()
        await ensure_database(state, name="sites")
        kafka = await start_secure_kafka(folder, state, SECRETS["kafkaright"])
        values = configuration(state, database="sites") | {"kafka_config": kafka.values["kafka_config"]}
        for name in ("primary", "read_replica"):
            values["database_config"][name] |= {
                "host": "localhost",
                "ssl_mode": "verify-full",
                "ssl_rootcert": str(postgres.rootcert),
            }
        values["worker"] = {"web_port": 0, "session_timeout_seconds": 6}
        async with running_registry() as registry:
            values["kafka_config"]["schema_registry"] = {
                "url": registry.url,
                "username": "service",
                "password": SECRETS["registryright"],
            }
            yield Stage(folder, values)


async def is_known(stage: Stage, site_id: str) -> bool:
    return await stage.run(stage.config(), f"site {site_id}") == 0


async def run_worker(stage: Stage) -> None:
    """Let a worker say all that it can while it applies an event, and export all that it measures."""
    command = ("worker", "projector", "--log-level", "debug")
    worker = WorkerProcess(stage.folder, "projector-debug", stage.config(), command=command)
    await worker.start({"SITELOG_TRACEBACK": "1"})
    await worker.ready(60)
    await until("the event that was appended", lambda: is_known(stage, "site-1"), seconds=60)
    for path in ("/metrics", "/livez", "/readyz"):
        stage.printed[path] = (await worker.get(path)).text
    await worker.stop()
    stage.printed["worker"] = worker.text()


async def test_what_goes_well_shows_no_secret(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    config = stage.config()
    for line in ("config check", "config show", "config show --json", "db init", "db check", "topics create"):
        assert await stage.run(config, line) == 0, stage.printed
    assert await stage.run(config, "append FILE") == 0, stage.printed
    await run_worker(stage)
    for line in ("topics check", "lag", "site site-1", "log", "parked", "position show", "replay --verify", "replay"):
        assert await stage.run(config, line) == 0, stage.printed
    stage.printed["log records"] = caplog.text

    assert "Depot" in "".join(stage.printed.values())
    assert stage.shown() == []


PRIMARY, KAFKA = ("database_config", "primary"), ("kafka_config",)
FAILING = {
    "a wrong password of the application": ((*PRIMARY, "password"), SECRETS["appwrong"], "db check"),
    "a wrong password of the owner": (("database_config", "owner", "password"), SECRETS["ownerwrong"], "db init"),
    "a wrong password of the reading role": (
        ("database_config", "read_replica", "password"),
        SECRETS["readwrong"],
        "site site-1",
    ),
    "no Postgres": ((*PRIMARY, "port"), CLOSED_PORT, "db check"),
    "another host": ((*PRIMARY, "host"), "127.0.0.1", "db check"),
    "no such database": ((*PRIMARY, "database"), "nowhere", "db check"),
    "a wrong password for Kafka": ((*KAFKA, "sasl_password"), SECRETS["kafkawrong"], "topics check"),
    "no Kafka": ((*KAFKA, "bootstrap_servers"), [f"localhost:{CLOSED_PORT}"], "topics check"),
    "no TLS": ((*KAFKA, "security_protocol"), "SASL_PLAINTEXT", "topics check"),
    "passwords that aren't used": ((*KAFKA, "security_protocol"), "PLAINTEXT", "config check"),
    "a password in the registry's address": (
        (*KAFKA, "schema_registry", "url"),
        f"http://service:{SECRETS['registrywrong']}@localhost",
        "config check",
    ),
    "no registry": ((*KAFKA, "schema_registry", "url"), f"http://localhost:{CLOSED_PORT}", "append FILE"),
    "a password that isn't text": ((*KAFKA, "sasl_password"), [SECRETS["kafkawrong"]], "config check"),
    "a password in the wrong place": ((*KAFKA, "password"), SECRETS["kafkawrong"], "config check"),
}


@pytest.mark.parametrize("case", FAILING.values(), ids=FAILING)
async def test_what_goes_wrong_shows_no_secret(
    stage: Stage, case: tuple[tuple[str, ...], object, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path, value, line = case

    code = await stage.run(stage.config(*path, value=value), line)
    stage.printed[f"log records of {path}"] = caplog.text

    assert code not in (0, 70), stage.printed
    assert stage.shown() == []


@pytest.mark.parametrize("case", ["a wrong password for Kafka", "a wrong password of the application", "no Postgres"])
async def test_a_worker_that_is_refused_shows_no_secret(stage: Stage, case: str) -> None:
    path, value, _ = FAILING[case]
    worker = WorkerProcess(stage.folder, f"refused-{uuid.uuid4().hex}", stage.config(*path, value=value))
    await worker.start({"SITELOG_TRACEBACK": "1"})
    assert await worker.ends(60) in (2, 69), worker.text()

    stage.printed[f"worker, {case}"] = worker.text()
    assert "error: " in worker.text()
    assert stage.shown() == []


def test_no_repr_shows_a_secret(stage: Stage) -> None:
    settings = Settings.model_validate(stage.values)
    registry = settings.kafka_config.schema_registry
    assert registry is not None
    for name, thing in {
        "settings": settings,
        "its Kafka": settings.kafka_config,
        "its registry": registry,
        "its databases": settings.database_config,
        "as a dict": settings.model_dump(),
        "as JSON": settings.model_dump_json(),
        "Faust's credentials": faust_credentials(settings),
        "a registry's client": vars(SchemaRegistry(registry)),
    }.items():
        stage.printed[f"repr of {name}"] = f"{thing!r} {thing!s}"

    assert stage.shown() == []
    assert os.fspath(stage.folder) in stage.printed["repr of settings"], "nothing was looked at"
