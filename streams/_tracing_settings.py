"""The configuration's `tracing`: whether there are any traces; all else about them is OpenTelemetry's `OTEL_…`."""

from sitelog.streams._section import Section


class TracingSettings(Section):
    """Off unless asked for: nothing of OpenTelemetry is imported then, and no event has a header of ours."""

    # Spans go to OTEL_EXPORTER_OTLP_ENDPOINT, by OTLP over HTTP. Needs the extra: pip install 'sitelog[tracing]'.
    enabled: bool = False
