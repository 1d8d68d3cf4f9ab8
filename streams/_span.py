"""A span that tells what went wrong in its block: by SQLSTATE or class, as an error's message may have values in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.trace import Span, Status, StatusCode, Tracer


@contextmanager
def span_of_block(tracer: Tracer, name: str, **options: Any) -> Iterator[None]:
    """Have a current span for a block; its parent is the one before unless a context is given."""
    with tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False, **options) as span:
        try:
            yield
        except BaseException as error:
            mark_failed(span, error)
            raise


def mark_failed(span: Span, error: BaseException) -> None:
    """Name the error that a span ends with."""
    state: str | None = getattr(error, "sqlstate", None)
    span.set_attribute("error.type", state or type(error).__name__)
    if state:
        span.set_attribute("db.response.status_code", state)
    span.set_status(Status(StatusCode.ERROR, type(error).__name__))
