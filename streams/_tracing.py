"""Traces, where the configuration asks for them; OpenTelemetry is imported here and nowhere before."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sitelog.streams.errors import ConfigError
from sitelog.streams.settings import ProducerSettings

if TYPE_CHECKING:
    from sitelog.streams._telemetry import Telemetry


def open_telemetry(settings: ProducerSettings, service: str, instance: str | None = None) -> "Telemetry | None":
    """Start what sends spans, named `service` unless OTEL_SERVICE_NAME says otherwise; None where tracing is off.

    `instance` is this process among others of its kind, its host and pid where none is given.
    Raises ConfigError where OpenTelemetry isn't installed or its variables can't be used.
    """
    if not settings.tracing.enabled:
        return None
    try:
        from sitelog.streams._telemetry import Telemetry  # noqa: PLC0415 - who doesn't trace needn't have it
    except ImportError as error:
        raise ConfigError(
            f"tracing.enabled: expected OpenTelemetry to be installed, got: {error}. "
            "Run pip install 'sitelog[tracing]', or turn tracing off"
        ) from error
    return Telemetry(service, instance)


@contextmanager
def telemetry(settings: ProducerSettings, service: str, instance: str | None = None) -> Iterator["Telemetry | None"]:
    """Give `open_telemetry`'s answer for a block, and at its end send what is left, for a bounded time."""
    opened = open_telemetry(settings, service, instance)
    try:
        yield opened
    finally:
        if opened is not None:
            opened.close()
