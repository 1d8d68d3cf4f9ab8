"""Structured logs: one JSON object a line on stderr, with a bound on what a dead broker makes libraries say."""

import logging
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal

import orjson

from sitelog.streams.errors import SitelogError

log = logging.getLogger("sitelog.worker")

NOISY: Final = (
    "aiokafka",
    "aiokafka.conn",
    "aiokafka.cluster",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
)
"""A dead broker makes these say the same thing ten times a second."""

REPEAT_SECONDS: Final = 10.0

TRACING: Final = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
)
"""A collector that is away makes these complain of each request, and of each span that there is no room for."""

TRACE_HEADERS: Final = ("opentelemetry.trace.span", "opentelemetry.trace.propagation.tracecontext")
"""These repeat what is wrong with a record's headers: as many lines as records, of whatever anybody has sent."""

TRACING_REPEAT_SECONDS: Final = 300.0
"""Nobody is waiting for traces: once in a while is enough."""


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: time, level, logger, message, and the traceback of what isn't foreseen."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and not isinstance(record.exc_info[1], SitelogError):
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


class OncePer(logging.Filter):
    """Lets the same message, whatever its arguments, pass once in `seconds`; `now` is a monotonic clock."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds = seconds
        self._now = now
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record may pass."""
        now = self._now()
        last = self._passed.get(str(record.msg))
        if last is not None and now - last < self._seconds:
            return False
        self._passed[str(record.msg)] = now
        return True


def configure(form: Literal["json", "text"], level: str) -> None:
    """Send all logs of this process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if form == "json" else text)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for names, seconds in ((NOISY, REPEAT_SECONDS), (TRACING, TRACING_REPEAT_SECONDS)):
        for name in names:
            logging.getLogger(name).addFilter(OncePer(seconds))
    threading.excepthook = log_failed_thread
    # Reports every idle connection that is lost, with a traceback; the pipeline says what matters.
    logging.getLogger("asyncpg.pool").setLevel(logging.CRITICAL)
    for name in TRACE_HEADERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Faust's own start-up chatter.
    for name in ("faust", "mode", "aiokafka.consumer.subscription_state"):
        logging.getLogger(name).setLevel(max(logging.getLogger().level, logging.WARNING))


def log_failed_thread(failed: threading.ExceptHookArgs) -> None:
    """Log what ended a thread, where Python would print it; what is foreseen is told by who waits for the thread."""
    error = failed.exc_value
    if error is not None and not isinstance(error, SitelogError):
        log.critical("%s failed", failed.thread.name if failed.thread else "a thread", exc_info=error)
