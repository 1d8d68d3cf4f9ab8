"""What makes spans and sends them: OpenTelemetry's SDK in a thread of its own, which holds nobody up."""

import logging
import os
import socket
from collections.abc import Callable, Mapping
from importlib.metadata import version
from threading import Thread
from typing import Final
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.util.re import parse_env_headers

from sitelog.streams.errors import ConfigError

CLOSE_SECONDS_MAX: Final = 2.0
"""For the last spans, where the collector is slow or away: a worker has 10 s for all of its end."""
FLUSH_SECONDS_MAX: Final = 0.5
"""For the spans of what ends the process at once: nobody else may wait for it longer."""

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_HEADERS: Final = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
_ONLY: Final = {
    "OTEL_EXPORTER_OTLP_PROTOCOL": ("http/protobuf",),
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": ("http/protobuf",),
    "OTEL_TRACES_EXPORTER": ("otlp", "none"),
}


class Telemetry:
    """A tracer, and the thread that sends its spans in the background.

    The queue is bounded (OTEL_BSP_MAX_QUEUE_SIZE, 2,048): where the collector is slow or away, spans are dropped. Where
    this process has set OpenTelemetry up by itself, spans go its way, and sending them is its business.
    """

    def __init__(self, service: str, instance: str | None = None) -> None:
        """Start the thread. Raises ConfigError for variables that can't be used."""
        self._own: TracerProvider | None = None
        provider = trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider):
            provider = self._own = _provider(service, instance or f"{socket.gethostname()}:{os.getpid()}")
        self.tracer = provider.get_tracer("sitelog", version("sitelog"))

    def flush(self, seconds: float = FLUSH_SECONDS_MAX) -> None:
        """Send what has ended, or give up after so many seconds."""
        if self._own is not None:
            _within(seconds, self._own.force_flush)

    def close(self, seconds: float = CLOSE_SECONDS_MAX) -> None:
        """Send what has ended, or give up after so many seconds; no span is taken any more."""
        if self._own is not None:
            _within(seconds, self._own.shutdown)


def _within(seconds: float, do: Callable[[], object]) -> None:
    """Do it, but don't wait for longer: the SDK's own bounds are 30 s, or none. The process may end meanwhile."""
    thread = Thread(target=do, name="telemetry", daemon=True)
    thread.start()
    thread.join(seconds)


def _provider(service: str, instance: str) -> TracerProvider:
    _refuse_unusable(os.environ)
    try:
        provider = TracerProvider(resource=_resource(service, instance), shutdown_on_exit=False)
        if os.environ.get("OTEL_TRACES_EXPORTER") != "none":
            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:
        raise ConfigError(f"OpenTelemetry's variables (OTEL_…): {error}") from error
    return provider


def _resource(service: str, instance: str) -> Resource:
    """Say who sends; what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes first."""
    own = {"service.name": service, "service.version": version("sitelog"), "service.instance.id": instance}
    return Resource.create({**own, **OTELResourceDetector().detect().attributes})


def _refuse_unusable(environ: Mapping[str, str]) -> None:
    """Raise ConfigError for what the SDK would take silently, or complain of aloud with the secrets that are in it."""
    for name, known in _ONLY.items():
        if environ.get(name) not in (None, "", *known):
            raise ConfigError(f"environment variable {name}: expected {' or '.join(known)}, got {environ[name]!r}")
    for name in _ENDPOINTS:
        if environ.get(name) and not _is_address(environ[name]):
            raise ConfigError(
                f"environment variable {name}: expected http://host:port or https://host:port, got something else. "
                f"Credentials belong in {_HEADERS[0]}"
            )
    for name in _HEADERS:
        if _malformed(environ.get(name, "")):
            raise ConfigError(f"environment variable {name}: expected name=value,name=value, got something else")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc and parts.port != 0
        )
    except ValueError:
        return False


def _malformed(headers: str) -> bool:
    complaints = logging.getLogger("opentelemetry.util.re")
    complaints.disabled = True  # they have the value in them
    try:
        parts = [part.strip() for part in headers.split(",") if part.strip()]
        return any(not parse_env_headers(part, liberal=True) for part in parts)
    finally:
        complaints.disabled = False
