"""The Faust app of one consumer: the settings that make Faust safe, in one place, each with its reason."""

import tempfile
from collections.abc import Callable, Sequence
from typing import Any, Final

import faust
from faust.tables.manager import TableManager

from sitelog.streams._batch import Positions, RecordBatch, Sink
from sitelog.streams._group import group_id
from sitelog.streams._kafka import faust_credentials
from sitelog.streams.errors import Halt
from sitelog.streams.settings import Settings

NEVER_SECONDS: Final = 100 * 365 * 86_400.0
"""After so long without a poll aiokafka leaves the group and never rejoins. Who has no partition, or a blocked agent,
polls nothing: it must not happen by itself."""

QUEUE_POLLS: Final = 1
"""Polls that wait for the agent: what waits in Kafka instead becomes part of a larger one."""
HINT_INTERVAL_SECONDS: Final = 2.0


class NoTables(TableManager):
    """Faust's table manager without tables, and so without the second that it sleeps at every start."""

    async def on_start(self) -> None:
        """Start the recovery service at once: it is what resumes reading after each rebalance."""
        await self._update_channels()
        await self.recovery.start()


class PollSchema(faust.Schema[None, Sequence[RecordBatch]]):
    """Hands a poll's record batches through: decoding is the transaction's work."""

    def loads_key(self, app: Any, message: Any, **_: Any) -> None:
        """Return no key: a batch has many."""

    def loads_value(self, app: Any, message: Any, **_: Any) -> Sequence[RecordBatch]:  # noqa: ARG002
        """Return the batches themselves."""
        batches: Sequence[RecordBatch] = message.value
        return batches


class BatchApp(faust.App):
    """A Faust app whose transport reads batches under claims that `positions` grants, and `sink` applies."""

    positions: Positions
    sink: Sink
    on_halt: Callable[[Halt], None]
    claim_grace_seconds: float
    fence_grace_seconds: float
    drain_seconds: float
    fetch_wait_ms_max: int
    poll_bytes_max: int


def build_app(
    settings: Settings,
    consumer: str,
    *,
    positions: Positions,
    sink: Sink,
    on_halt: Callable[[Halt], None],
    client_id: str,
) -> BatchApp:
    """Build the Faust app of `consumer`, with no agents yet; its brokers know it by `client_id`.

    `on_halt` is called just before the process ends with the halt's exit code.
    """
    worker = settings.worker
    app = BatchApp(
        group_id(consumer),
        broker=";".join(f"batch://{server}" for server in settings.kafka_config.bootstrap_servers),
        broker_credentials=faust_credentials(settings),
        broker_client_id=client_id,
        broker_session_timeout=worker.session_timeout_seconds,
        broker_heartbeat_interval=worker.heartbeat_interval_seconds,
        broker_rebalance_timeout=worker.rebalance_timeout_seconds,
        broker_request_timeout=worker.request_timeout_seconds,
        broker_max_poll_interval=NEVER_SECONDS,
        broker_max_poll_records=worker.batch_records_max,
        broker_commit_interval=HINT_INTERVAL_SECONDS,
        broker_commit_every=1_000_000_000,
        consumer_max_fetch_size=worker.batch_bytes_max,
        consumer_group_instance_id=worker.instance_id,
        # A position that the topic no longer has must stop the worker, not skip events.
        consumer_auto_offset_reset="none",
        consumer_metadata_max_age_ms=round(worker.metadata_max_age_seconds * 1_000),
        stream_buffer_maxsize=QUEUE_POLLS,
        stream_wait_empty=True,
        processing_guarantee="at_least_once",
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        TableManager=NoTables,
        store="memory://",
        datadir=tempfile.gettempdir(),
        # Faust's own pages are unauthenticated, and its `/` always answers OK.
        web_enabled=False,
        worker_redirect_stdouts=False,
        autodiscover=False,
    )
    app.positions = positions
    app.sink = sink
    app.on_halt = on_halt
    app.claim_grace_seconds = worker.claim_grace_seconds
    app.fence_grace_seconds = worker.fence_grace_seconds
    app.drain_seconds = worker.drain_seconds
    app.fetch_wait_ms_max = worker.fetch_wait_ms_max
    app.poll_bytes_max = worker.batch_bytes_max
    return app
