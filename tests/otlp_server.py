"""An OpenTelemetry collector on a real socket: takes spans by OTLP over HTTP, and keeps them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sitelog.deploy._ports import LOOPBACK


@dataclass(frozen=True)
class Seen:
    """One span as it came, and who sent it."""

    span: Span
    resource: dict[str, Any]

    @property
    def name(self) -> str:
        return self.span.name

    @property
    def kind(self) -> str:
        return Span.SpanKind.Name(self.span.kind).removeprefix("SPAN_KIND_")

    @property
    def trace_id(self) -> str:
        return self.span.trace_id.hex()

    @property
    def id(self) -> str:
        return self.span.span_id.hex()

    @property
    def parent(self) -> str:
        return self.span.parent_span_id.hex()

    @property
    def links(self) -> set[str]:
        """The spans that it is linked to, by their ids."""
        return {link.span_id.hex() for link in self.span.links}

    @property
    def attributes(self) -> dict[str, Any]:
        return plain(self.span.attributes)


@dataclass
class Collector:
    """What a collector has been told. `bodies` are the requests, byte by byte."""

    endpoint: str = ""
    spans: list[Seen] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def of(self, name: str) -> list[Seen]:
        return [seen for seen in self.spans if seen.name == name]

    def below(self, parent: Seen) -> list[Seen]:
        return [seen for seen in self.spans if seen.parent == parent.id]

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bodies.append(body)
        for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = plain(sent.resource.attributes)
            self.spans += [Seen(span, resource) for scope in sent.scope_spans for span in scope.spans]
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")


def plain(attributes: Any) -> dict[str, Any]:
    """Return attributes as Python has them."""
    found: dict[str, Any] = {}
    pair: KeyValue
    for pair in attributes:
        found[pair.key] = _plain(pair.value)
    return found


def _plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None


@asynccontextmanager
async def running_collector(port: int = 0) -> AsyncIterator[Collector]:
    collector = Collector()
    app: Any = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, port).start()
    collector.endpoint = f"http://{LOOPBACK}:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()
