"""A trace goes from a producer through Kafka into the transaction; off, there is nothing of it, nor does it cost."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from opentelemetry.sdk.trace import TracerProvider

from sitelog.streams.append import Appender
from sitelog.streams.events import SiteCreated, SiteValues
from sitelog.streams.settings import TracingSettings
from tests.commands import sitelog
from tests.conftest import Services
from tests.lives import Lives
from tests.otlp_server import Collector, Seen, running_collector
from tests.reading import records_of
from tests.rig import Rig, config_values, open_rig, write_config
from tests.until import until
from tests.worker_process import WorkerProcess

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kafka")]

SITES = "customer-sites-events"
KAFKA_KEY = "messaging.kafka.message.key"
KEY = "secret-key-of-the-collector"
LOCK_TIMEOUT, NO_SUCH_TABLE = "55P03", "42P01"
EXIT_FAILED = 70
LOCKED = "SELECT FROM sitelog.consumer_position FOR UPDATE"


def created(site_id: str) -> SiteCreated:
    return SiteCreated(site_id=site_id, site_data=SiteValues(name="Harbour View"))


@dataclass
class Stage:
    """A worker that traces, and the collector that it was told of, which can go away and come back."""

    rig: Rig
    worker: WorkerProcess
    environ: dict[str, str]
    collector: Collector
    stack: AsyncExitStack

    async def collector_goes(self) -> None:
        await self.stack.aclose()

    async def collector_comes(self) -> None:
        port = urlsplit(self.collector.endpoint).port
        self.collector = await self.stack.enter_async_context(running_collector(port or 0))

    def appender(self) -> Appender:
        return Appender(self.rig.settings.model_copy(update={"tracing": TracingSettings(enabled=True)}))

    async def seen(self, name: str, wanted: Callable[[Seen], bool] = lambda _: True) -> Seen:
        """Wait for a span."""

        async def look() -> list[Seen]:
            return [seen for seen in self.collector.of(name) if wanted(seen)]

        return (await until(f"a span {name}", look))[0]

    async def applied(self, events: int) -> None:
        async def all_in() -> bool:
            return await self.rig.log_rows() >= events

        await until("the events in the log", all_in)


@pytest.fixture(scope="module")
async def whole_stage(services: Services, database_template: str) -> AsyncIterator[Stage]:
    async with open_rig(services, database_template) as rig, AsyncExitStack() as stack:
        collector = await stack.enter_async_context(running_collector())
        environ = {
            "SITELOG__TRACING__ENABLED": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_EXPORTER_OTLP_HEADERS": f"api-key={KEY}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        worker = await rig.worker(environ=environ, lock_timeout_seconds=1, instance_id="traced-1")
        yield Stage(rig, worker, environ, collector, stack)


@pytest.fixture
def stage(whole_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """The stage, its collector with nothing seen, and producers of this process told of it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", whole_stage.collector.endpoint)
    whole_stage.collector.spans.clear()
    return whole_stage


async def test_an_event_s_trace_goes_from_its_producer_into_the_transaction(stage: Stage) -> None:
    event = created("traced")
    with TracerProvider().get_tracer("a caller").start_as_current_span("request") as request:
        async with stage.appender() as appender:
            place = await appender.append(event)

    sent = await stage.seen(f"send {SITES}", lambda seen: seen.attributes[KAFKA_KEY] == "traced")
    trace_id, caller = (f"{number:0{width}x}" for number, width in zip(
        (request.get_span_context().trace_id, request.get_span_context().span_id), (32, 16), strict=True
    ))  # fmt: skip
    assert (sent.kind, sent.trace_id, sent.parent) == ("PRODUCER", trace_id, caller)
    assert sent.attributes == {
        "messaging.system": "kafka",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": SITES,
        "messaging.destination.partition.id": str(place.partition),
        "messaging.kafka.offset": place.offset,
        "messaging.kafka.message.key": "traced",
        "messaging.message.id": event.event_id,
        "sitelog.event_type": "site_created",
    }
    assert sent.resource["service.name"] == "sitelog-append"

    process = await stage.seen(f"process {SITES}")
    assert (process.kind, process.trace_id, process.parent) == ("CONSUMER", trace_id, sent.id)
    assert process.links == {sent.id}
    assert process.attributes == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": "sitelog-projector",
        "messaging.destination.name": SITES,
        "messaging.destination.partition.id": str(place.partition),
        "messaging.batch.message_count": 1,
        "sitelog.offset.first": place.offset,
        "sitelog.offset.last": place.offset,
        "sitelog.verdict": "applied",
        "sitelog.events": 1,
        "sitelog.duplicates": 0,
        "sitelog.parked": 0,
        "sitelog.waiting": 0,
        "sitelog.conflicts": 0,
    }
    assert (process.resource["service.name"], process.resource["service.instance.id"]) == (
        "sitelog-projector",
        "traced-1",
    )

    decode, transaction = sorted(stage.collector.below(process), key=lambda seen: seen.span.start_time_unix_nano)
    database = stage.rig.database
    assert (decode.name, transaction.name, transaction.kind) == ("decode", f"transaction {database}", "CLIENT")
    assert transaction.attributes == {
        "db.system.name": "postgresql",
        "db.namespace": database,
        "db.operation.name": "transaction",
        "server.address": "127.0.0.1",
        "server.port": stage.rig.services.state.postgres_port,
        "sitelog.slices": [f"{SITES}[{place.partition}] {place.offset}-{place.offset}"],
    }
    [commit] = stage.collector.below(transaction)
    assert (commit.name, commit.kind, commit.trace_id) == (f"COMMIT {database}", "CLIENT", trace_id)


async def test_batches_of_many_events_are_linked_to_every_producer(stage: Stage) -> None:
    events = list(islice(Lives(7), 200))
    before = await stage.rig.log_rows()
    async with stage.appender() as appender:
        await appender.append_many(events)
    await stage.applied(before + len(events))

    def processed() -> list[Seen]:
        return [seen for topic in (SITES, "territory-events") for seen in stage.collector.of(f"process {topic}")]

    async def all_of_them() -> bool:
        return sum(seen.attributes["messaging.batch.message_count"] for seen in processed()) == len(events)

    await until("the spans of all batches", all_of_them)
    sent = {seen.id for topic in (SITES, "territory-events") for seen in stage.collector.of(f"send {topic}")}
    assert len(sent) == len(events)
    assert set().union(*(seen.links for seen in processed())) == sent
    assert sum(seen.attributes["sitelog.events"] for seen in processed()) == len(events)


async def test_a_transaction_that_fails_is_seen_with_its_reason_and_the_batch_with_its_retries(stage: Stage) -> None:
    before = await stage.rig.log_rows()
    # What a worker does with the first events of a partition takes a whole transaction.
    firsts = [created(f"first-{number}") for number in range(50)]
    async with stage.appender() as appender:
        await appender.append_many(firsts)
    await stage.applied(before := before + len(firsts))
    blocker = await stage.rig.another_connection()
    async with blocker.transaction():
        await blocker.execute(LOCKED)
        async with stage.appender() as appender:
            await appender.append(created("Locked Out"))
        failed = await stage.seen(f"transaction {stage.rig.database}", lambda seen: "error.type" in seen.attributes)
        assert (failed.attributes["error.type"], failed.span.status.message) == (LOCK_TIMEOUT, "LockNotAvailableError")
        assert stage.collector.below(failed) == [], "few events are one statement, with nothing to roll back"
    await stage.applied(before + 1)
    process = await stage.seen(f"process {SITES}", lambda seen: bool(seen.span.events))
    assert ("retry", "database") in [
        (event.name, event.attributes[0].value.string_value) for event in process.span.events
    ]
    assert process.attributes["sitelog.verdict"] == "applied"
    assert process.span.status.code == 0


async def test_without_its_collector_a_worker_goes_on_and_says_so_once(stage: Stage) -> None:
    before = await stage.rig.log_rows()
    await stage.collector_goes()
    async with stage.appender() as appender:
        await appender.append_many(islice(Lives(8), 100))
    await stage.applied(before + 100)
    assert (await stage.worker.get("/readyz")).status_code == 200

    async def complaints() -> list[str]:
        return [line["message"] for line in stage.worker.log() if line["logger"].startswith("opentelemetry")]

    [complaint] = await until("a complaint", complaints)
    assert "encountered while exporting spans batch" in complaint
    await stage.collector_comes()
    async with stage.appender() as appender:
        await appender.append(created("afterwards"))
    sent = await stage.seen(f"send {SITES}", lambda seen: seen.attributes[KAFKA_KEY] == "afterwards")
    await stage.seen(f"process {SITES}", lambda seen: sent.id in seen.links)
    assert all("traceback" not in line for line in stage.worker.log())


def secrets(rig: Rig) -> list[str]:
    state = rig.services.state
    return [KEY, *(p.get_secret_value() for p in (state.app_password, state.owner_password, state.read_password))]


async def test_spans_and_log_show_neither_secrets_nor_what_is_in_events(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stage.environ.items():
        monkeypatch.setenv(name, value)
    lines = tmp_path / "events.jsonl"
    lines.write_text('{"type": "site_created", "site_id": "private", "site_data": {"name": "Harbour View"}}')
    ran = await sitelog(
        write_config(stage.rig.services, config_values(stage.rig.services, "sites")), "append", str(lines)
    )
    assert ran.code == 0
    sent = await stage.seen(f"send {SITES}", lambda seen: seen.attributes[KAFKA_KEY] == "private")
    await stage.seen(f"process {SITES}", lambda seen: sent.id in seen.links)
    told = b"".join(stage.collector.bodies)
    assert b"private" in told  # the key
    for text in (*secrets(stage.rig), "SELECT", "INSERT", "Harbour"):
        assert text.encode() not in told
    for text in secrets(stage.rig):
        assert text not in stage.worker.text()


async def test_what_ends_a_worker_at_once_is_sent_first(stage: Stage) -> None:
    await stage.rig.connection.execute("ALTER TABLE customer_sites_v1 RENAME TO mislaid")
    async with stage.appender() as appender:
        await appender.append(created("fatal"))
    assert await stage.worker.ends() == EXIT_FAILED
    await stage.rig.connection.execute("ALTER TABLE mislaid RENAME TO customer_sites_v1")
    process = await stage.seen(f"process {SITES}", lambda seen: "error.type" in seen.attributes)
    assert process.attributes["error.type"] == NO_SUCH_TABLE
    assert "sitelog.verdict" not in process.attributes


async def test_a_worker_that_is_told_to_end_sends_its_last_spans_first(stage: Stage) -> None:
    before = await stage.rig.log_rows()
    worker = await stage.rig.worker(environ=stage.environ | {"OTEL_BSP_SCHEDULE_DELAY": "60000"})
    await stage.rig.ledger.append_all([created("last")])
    await stage.applied(before + 1)
    await worker.stop()
    assert worker.process.returncode == 0
    assert "applied" in {seen.attributes["sitelog.verdict"] for seen in stage.collector.of(f"process {SITES}")}


async def test_off_nothing_of_opentelemetry_is_imported_and_no_event_has_headers(
    whole_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = whole_stage.rig
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", whole_stage.collector.endpoint)
    before = await rig.log_rows()
    worker = await rig.worker(environ={"PYTHONPROFILEIMPORTTIME": "1", "OTEL_TRACES_EXPORTER": "otlp"})
    with TracerProvider().get_tracer("a caller").start_as_current_span("request"):
        async with Appender(rig.settings) as appender:
            await appender.append(created("untraced"))
    await whole_stage.applied(before + 1)
    [record] = await records_of(rig.settings, SITES, "untraced")
    assert tuple(record.headers) == ()
    imported = worker.text()
    assert "sitelog.streams._tracing" in imported
    assert "opentelemetry" not in imported
