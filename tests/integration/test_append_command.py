"""`sitelog append` against a real Kafka, as a user runs it."""

import asyncio
import json
import os
import signal
import sys
import uuid
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiokafka.admin import AIOKafkaAdminClient

from sitelog.deploy._configuration import configuration
from sitelog.streams._kafka import kafka_client_options
from sitelog.streams.codec import Codec
from sitelog.streams.examples import example
from sitelog.streams.json_lines import line_of
from sitelog.streams.settings import Settings
from sitelog.streams.topics import EXIT_TOPICS, create_topics
from tests.frozen_broker import frozen_broker
from tests.reading import records_of

pytestmark = pytest.mark.services

SITES = "customer-sites-events"
BAD = '{"type":"site_deleted"}'


@pytest.fixture
def prefix() -> str:
    return f"{uuid.uuid4().hex}-"


@pytest.fixture
async def kafka_settings(services: Any, kafka: list[str]) -> Settings:
    settings: Settings = services.settings("unused")
    assert settings.kafka_config.bootstrap_servers == kafka
    await create_topics(settings)
    return settings


@pytest.fixture
def config(services: Any, kafka_settings: Settings, tmp_path: Path) -> Path:
    path = tmp_path / "sitelog.yaml"
    whole = configuration(services.state, database="unused")
    path.write_text(yaml.safe_dump({"kafka_config": whole["kafka_config"]}))  # a producer has no database
    assert kafka_settings
    return path


async def started(config: Path, *arguments: str | Path, folder: Path, **environ: str) -> Process:
    sitelog = Path(sys.executable).with_name("sitelog")
    command = [sitelog, "append", *arguments, "--config", config]
    return await asyncio.create_subprocess_exec(*command, cwd=folder, env=environ, stdin=PIPE, stdout=PIPE, stderr=PIPE)


async def finished(process: Process, given: str = "") -> tuple[int | None, str, str]:
    out, err = await process.communicate(given.encode())
    return process.returncode, out.decode(), err.decode()


def line(prefix: str, reason: str) -> str:
    return line_of(example("site_deleted", site_id=f"{prefix}a", event_id=str(uuid.uuid4()), reason=reason))


async def reasons(settings: Settings, prefix: str) -> list[str | None]:
    events: list[Any] = [Codec().decode(record.value).event for record in await records_of(settings, SITES, prefix)]
    return [event.reason for event in events]


async def begun(process: Process, settings: Settings, prefix: str) -> asyncio.StreamWriter:
    """Give it one event and an empty line, and return where the next lines go once Kafka has that event."""
    assert process.stdin is not None
    process.stdin.write(f"{line(prefix, 'before')}\n\n".encode())
    async with asyncio.timeout(60):
        while await reasons(settings, prefix) != ["before"]:
            pass
    return process.stdin


async def test_a_file_is_appended_in_its_order(
    config: Path, kafka_settings: Settings, prefix: str, tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text("".join(f"{line(prefix, str(number))}\n" for number in range(500)))
    process = await started(config, file, "--json", folder=tmp_path)
    code, out, err = await finished(process)
    assert (code, err) == (0, "")
    assert {**json.loads(out), "seconds": 0} == {"appended": 500, "bad_lines": 0, "seconds": 0, "dry_run": False}
    assert await reasons(kafka_settings, prefix) == [str(number) for number in range(500)]


async def test_nothing_after_a_bad_line_is_sent(
    config: Path, kafka_settings: Settings, prefix: str, tmp_path: Path
) -> None:
    process = await started(config, folder=tmp_path)
    lines = [line(prefix, "first"), "", line(prefix, "second"), BAD, line(prefix, "third")]
    code, out, err = await finished(process, "\n".join(lines))
    assert code == 1
    assert out.startswith("2 events appended in ")
    assert out.endswith("1 bad line\n")
    assert err == "stdin:4: site_id: expected a value, got none\n"
    assert await reasons(kafka_settings, prefix) == ["first", "second"]


async def test_bad_lines_are_left_out_when_told_so(
    config: Path, kafka_settings: Settings, prefix: str, tmp_path: Path
) -> None:
    process = await started(config, "-", "--on-error", "continue", folder=tmp_path)
    large = line(prefix, "x" * 2_000_000)
    code, out, err = await finished(process, "\n".join([line(prefix, "first"), BAD, large, line(prefix, "last")]))
    assert code == 1
    assert out.startswith("2 events appended in ")
    assert err.splitlines()[0] == "stdin:2: site_id: expected a value, got none"
    assert err.splitlines()[1].startswith("stdin:3: site_deleted ")
    assert "expected at most 1048576 bytes (append.event_bytes_max), got 2000" in err.splitlines()[1]
    assert await reasons(kafka_settings, prefix) == ["first", "last"]


async def test_a_line_is_in_kafka_before_the_next_one_is_written_and_ctrl_c_says_what_was(
    config: Path, kafka_settings: Settings, prefix: str, tmp_path: Path
) -> None:
    process = await started(config, folder=tmp_path)
    assert process.stdin is not None
    process.stdin.write(f"{line(prefix, 'live')}\n".encode())
    async with asyncio.timeout(60):
        while await reasons(kafka_settings, prefix) != ["live"]:
            pass
    process.send_signal(signal.SIGINT)
    code, out, err = await finished(process)
    assert (code, err) == (130, "")
    assert out.startswith("1 event appended in ")


async def test_a_kafka_that_is_not_there_is_exit_code_69(config: Path, prefix: str, tmp_path: Path) -> None:
    process = await started(config, folder=tmp_path, SITELOG__KAFKA_CONFIG__BOOTSTRAP_SERVERS="127.0.0.1:1")
    code, out, err = await finished(process, line(prefix, "never"))
    assert code == 69
    assert out.startswith("0 events appended in ")
    assert err.startswith("error: Kafka can't be reached (127.0.0.1:1: ")


async def test_an_event_that_only_the_broker_finds_too_large_is_named_with_the_line_to_resume_at(
    config: Path, kafka_settings: Settings, prefix: str, tmp_path: Path
) -> None:
    larger = {f"SITELOG__{name}": str(4 * 1_048_576) for name in ("APPEND__EVENT_BYTES_MAX", "WORKER__BATCH_BYTES_MAX")}
    process = await started(config, folder=tmp_path, **larger)
    # Of the topic that no test lets take more.
    large = line_of(example("territory_deleted", territory_id=prefix, reason=os.urandom(1_500_000).hex()))
    code, out, err = await finished(process, "\n".join([line(prefix, "first"), "", large]))
    assert code == 2, (out, err)
    assert out.startswith("1 event appended in ")
    first, second = err.splitlines()
    assert first.startswith(f"error: stdin:3: territory_deleted {json.loads(large)['event_id']} of ")
    assert "expected what territory-events takes, got: " in first
    assert "Raise its max.message.bytes" in first
    assert second.startswith("error: Append again from line 3 on; a line without event_id ")
    assert await reasons(kafka_settings, prefix) == ["first"]


async def test_an_outage_names_the_line_to_resume_at(
    services: Any, config: Path, kafka_settings: Settings, prefix: str, tmp_path: Path
) -> None:
    limits = {"SITELOG__APPEND__DELIVERY_TIMEOUT_SECONDS": "2", "SITELOG__APPEND__IN_FLIGHT_MAX": "10"}
    process = await started(config, folder=tmp_path, **limits)
    await begun(process, kafka_settings, prefix)
    async with frozen_broker(services):
        lines = [line(prefix, str(number)) for number in range(50)]
        code, out, err = await finished(process, "\n".join(lines))
    assert code == 69
    assert out.startswith("1 event appended in ")
    first, second = err.splitlines()
    assert first.startswith(f"error: stdin:3: site_deleted {json.loads(lines[0])['event_id']} of ")
    assert "so may 9 after it" in first
    assert second.startswith("error: Append again from line 3 on; a line without event_id ")


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
async def test_who_interrupts_it_in_an_outage_learns_the_line_to_resume_at(
    told: signal.Signals, services: Any, config: Path, kafka_settings: Settings, prefix: str
) -> None:
    process = await started(config, folder=config.parent)
    stdin = await begun(process, kafka_settings, prefix)
    async with frozen_broker(services):
        stdin.write("".join(f"{line(prefix, str(number))}\n" for number in range(50)).encode())
        await asyncio.sleep(1)
        process.send_signal(told)
        code, out, err = await finished(process)
    assert code == 128 + told
    assert out.startswith("1 event appended in ")
    first, second = err.splitlines()
    assert first == "stdin:3: expected Kafka's acknowledgement, got interrupted"
    assert second.startswith("Append again from line 3 on; a line without event_id ")


async def test_a_topic_that_is_missing_for_a_later_line_names_the_line_to_resume_at(
    config: Path, kafka_settings: Settings, prefix: str, tmp_path: Path
) -> None:
    territory = line_of(example("territory_deleted", territory_id=prefix))
    admin = AIOKafkaAdminClient(**kafka_client_options(kafka_settings))
    await admin.start()
    try:
        await admin.delete_topics(["territory-events"])
        process = await started(config, folder=tmp_path)
        code, out, err = await finished(process, "\n".join([line(prefix, "first"), "", territory]))
    finally:
        await admin.close()
        await create_topics(kafka_settings)
    assert code == EXIT_TOPICS
    assert out.startswith("1 event appended in ")
    first, second = err.splitlines()
    assert first.startswith("error: stdin:3: expected the topic territory-events, ")
    assert second.startswith("error: Append again from line 3 on; a line without event_id ")
