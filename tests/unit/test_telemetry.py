"""Turning traces on: what is missing or wrong is said in a line, and a collector can't hold anybody up."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import yaml
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from sitelog.deploy._configuration import configuration
from sitelog.deploy._state import new_state
from sitelog.streams._telemetry import Telemetry
from sitelog.streams._tracing import open_telemetry, telemetry
from sitelog.streams.errors import ConfigError
from sitelog.streams.settings import Settings, TracingSettings
from tests.otlp_server import running_collector

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
VALUES = configuration(new_state(brokers=1))
OFF = Settings.model_validate(VALUES)
ON = OFF.model_copy(update={"tracing": TracingSettings(enabled=True)})


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No collector of this machine's, and no span before the end asks for it."""
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")  # for what a test leaves behind


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """Wait for what still tries to send: it draws random numbers, which other tests want to be their own."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith(("telemetry", "Otel")):
            thread.join(20)
            assert not thread.is_alive(), thread.name


def make_span(sending: Telemetry | None, name: str = "work") -> None:
    assert sending is not None
    sending.tracer.start_span(name).end()


async def test_what_has_ended_is_sent_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        with telemetry(ON, "sitelog-test") as sending:
            make_span(sending)

    async with running_collector() as collector:
        monkeypatch.setenv(ENDPOINT, collector.endpoint)
        await asyncio.to_thread(work)
    [seen] = collector.of("work")
    assert seen.resource["service.name"] == "sitelog-test"
    assert seen.resource["service.instance.id"].startswith(socket.gethostname())


async def test_what_has_ended_is_sent_before_a_process_is_ended_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_collector() as collector:
        monkeypatch.setenv(ENDPOINT, collector.endpoint)
        sending = open_telemetry(ON, "sitelog-test")
        make_span(sending)
        assert sending is not None
        await asyncio.to_thread(sending.flush)
        assert len(collector.of("work")) == 1
        await asyncio.to_thread(sending.close)


async def test_the_environment_says_who_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=me,deployment.environment.name=test")
    async with running_collector() as collector:
        monkeypatch.setenv(ENDPOINT, collector.endpoint)
        sending = Telemetry("sitelog-test")
        make_span(sending)
        await asyncio.to_thread(sending.close)
    [seen] = collector.of("work")
    told = seen.resource
    assert [told[name] for name in ("service.name", "service.instance.id", "deployment.environment.name")] == [
        "mine",
        "me",
        "test",
    ]


@contextmanager
def silent_server() -> Iterator[str]:
    """Takes connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_collector_that_says_nothing_delays_the_end_no_longer_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent_server() as endpoint:
        monkeypatch.setenv(ENDPOINT, endpoint)
        sending = Telemetry("sitelog-test")
        make_span(sending)
        began = monotonic()
        sending.flush(0.1)
        sending.close(0.2)
        assert 0.3 <= monotonic() - began < 1.5


def test_more_spans_than_there_is_room_for_are_dropped_and_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent_server() as endpoint:
        monkeypatch.setenv(ENDPOINT, endpoint)
        sending = Telemetry("sitelog-test")
        began = monotonic()
        for _ in range(5_000):
            make_span(sending)
        assert monotonic() - began < 5
        sending.close(0.1)


def test_off_is_nothing() -> None:
    with telemetry(OFF, "sitelog-test") as sending:
        assert sending is None


def test_a_process_that_has_set_opentelemetry_up_by_itself_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    own = TracerProvider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: own)
    monkeypatch.setattr(own, "shutdown", lambda: pytest.fail("not ours to end"))
    with telemetry(ON, "sitelog-test") as sending:
        assert sending is not None
        assert sending.tracer.start_span("theirs").is_recording()


def test_switched_off_by_opentelemetrys_own_variable_there_are_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with telemetry(ON, "sitelog-test") as sending:
        assert sending is not None
        assert not sending.tracer.start_span("none").is_recording()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (ENDPOINT, "collector:4318", "expected http://host:port"),
        (ENDPOINT, "https://me:hunter2@collector", "Credentials belong in OTEL_EXPORTER_OTLP_HEADERS"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://host:hunter2", "expected http://host:port"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization: Bearer hunter2", "expected name=value"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=b,hunter2", "expected name=value"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "expected http/protobuf, got 'grpc'"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "expected otlp or none, got 'zipkin'"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100", "OpenTelemetry's variables (OTEL_…): max_export_batch_size"),
    ],
)
def test_a_variable_that_can_not_be_used_is_named_and_what_is_secret_in_it_is_not(
    name: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as refused:
        open_telemetry(ON, "sitelog-test")
    assert expected in str(refused.value)
    assert "hunter2" not in str(refused.value) + caplog.text


def test_without_the_extra_a_worker_says_what_to_install(tmp_path: Path) -> None:
    missing = tmp_path / "opentelemetry"
    missing.mkdir()
    (missing / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'opentelemetry'\")")
    config = tmp_path / "sitelog.yaml"
    values: dict[str, Any] = VALUES | {"tracing": {"enabled": True}}
    config.write_text(yaml.safe_dump(values))
    ran = subprocess.run(
        [sys.executable, "-m", "sitelog.cli", "worker", "projector", "--config", config],
        env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        "error: tracing.enabled: expected OpenTelemetry to be installed, got: No module named 'opentelemetry'. "
        "Run pip install 'sitelog[tracing]', or turn tracing off\n"
    )
