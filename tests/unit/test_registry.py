"""What the schema registry's client asks, and what it makes of each answer."""

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from sitelog.schemas import load, newest
from sitelog.streams import registry as module
from sitelog.streams.codec import Codec, Undecodable
from sitelog.streams.errors import Halt, Retry
from sitelog.streams.examples import example
from sitelog.streams.registry import SchemaRegistry
from sitelog.streams.settings import SchemaRegistrySettings

SCHEMA = newest(load())["site_deleted"]
VALUE = b"\0\0\0\0\7" + Codec().encode(example("site_deleted"))[10:]
Answer = Callable[[httpx.Request], httpx.Response]


class Server:
    """Answers in process, and keeps what it was asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def client(server: Server, **settings: Any) -> SchemaRegistry:
    settings = {"url": "http://registry.test/base/", **settings}
    return SchemaRegistry(SchemaRegistrySettings(**settings), httpx.MockTransport(server))


def schema_answer(text: str = SCHEMA.text, **more: Any) -> httpx.Response:
    return httpx.Response(200, json={"schema": text, **more})


async def test_a_schema_is_asked_for_once_by_its_id() -> None:
    server = Server(schema_answer())
    async with client(server) as registry:
        codec = Codec(registry)
        for _ in range(3):
            await codec.prepare([VALUE, VALUE])
            assert codec.decode(VALUE).event == example("site_deleted")
    [request] = server.requests
    assert (request.method, str(request.url)) == ("GET", "http://registry.test/base/schemas/ids/7")
    assert "authorization" not in request.headers


async def test_user_and_password_go_along_and_are_never_shown() -> None:
    server = Server(schema_answer())
    async with client(server, url="https://registry.test", username="me", password=SecretStr("s3cret")) as registry:
        await registry.prepare([7])
        assert "s3cret" not in repr(vars(registry))
    assert server.requests[0].headers["authorization"] == "Basic " + base64.b64encode(b"me:s3cret").decode()


async def test_an_id_that_is_not_there_is_an_unknown_schema_and_asked_for_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    server = Server(httpx.Response(404, json={"error_code": 40403}), schema_answer())
    async with client(server) as registry:
        codec = Codec(registry)
        for _ in range(3):
            await codec.prepare([VALUE])
            with pytest.raises(Undecodable, match="schema id 7"):
                codec.decode(VALUE)
        assert len(server.requests) == 1
        now += 31
        await codec.prepare([VALUE])
        assert codec.decode(VALUE).event == example("site_deleted")


OUTAGES: list[httpx.Response | Exception] = [
    httpx.ConnectError("refused"),
    httpx.ReadTimeout("slow"),
    httpx.RemoteProtocolError("nonsense"),
    httpx.Response(500, text="oops"),
    httpx.Response(503),
    httpx.Response(429),
    httpx.Response(200, text="<html>log in</html>"),
    httpx.Response(200, json=[]),
]


@pytest.mark.parametrize("outage", OUTAGES, ids=repr)
async def test_an_outage_is_tried_again(outage: httpx.Response | Exception) -> None:
    server = Server(outage, schema_answer())
    async with client(server) as registry:
        with pytest.raises(Retry, match="registry"):
            await registry.prepare([7])
        assert not registry.was_asked(7)
        await registry.prepare([7])
        assert registry.found(7) == SCHEMA.text


@pytest.mark.parametrize("status", [301, 400, 401, 403])
async def test_a_refusal_stops_the_worker_with_the_registry_s_words(status: int) -> None:
    server = Server(httpx.Response(status, text="no entry"))
    async with client(server, url="https://registry.test", username="me", password=SecretStr("s3cret")) as registry:
        with pytest.raises(Halt, match=f"/schemas/ids/7: expected success, got {status} no entry") as refused:
            await registry.prepare([7])
    assert "s3cret" not in str(refused.value)


NO_AVRO = [
    schema_answer(schemaType="PROTOBUF"),
    schema_answer(references=[{"name": "x", "subject": "x", "version": 1}]),
]


@pytest.mark.parametrize("answer", NO_AVRO)
async def test_a_schema_that_is_no_avro_or_not_whole_is_unknown(answer: httpx.Response) -> None:
    async with client(Server(answer)) as registry:
        codec = Codec(registry)
        await codec.prepare([VALUE])
        with pytest.raises(Undecodable, match="schema id 7") as refused:
            codec.decode(VALUE)
    assert refused.value.reason == "unknown_schema"


async def test_another_record_s_schema_is_unknown() -> None:
    order = json.dumps({"type": "record", "name": "OrderPlaced", "fields": []})
    async with client(Server(schema_answer(order))) as registry:
        codec = Codec(registry)
        await codec.prepare([VALUE])
        with pytest.raises(Undecodable, match="called as one of our events, got OrderPlaced"):
            codec.decode(VALUE)


async def test_our_schemas_are_registered_under_topic_and_record_and_then_used() -> None:
    numbers = {schema.record: number for number, schema in enumerate(load(), start=256)}

    def answer(request: httpx.Request) -> httpx.Response:
        text = json.loads(request.content)["schema"]
        record = json.loads(text)["name"]
        topic = json.loads(text)["topic"]
        assert request.method == "POST"
        assert request.url.path == f"/base/subjects/{topic}-sitelog.events.{record}/versions"
        return httpx.Response(200, json={"id": numbers[record]})

    settings = SchemaRegistrySettings(url="http://registry.test/base")
    async with SchemaRegistry(settings, httpx.MockTransport(answer)) as registry:
        codec = Codec(registry)
        assert codec.encode(example("site_deleted"))[:2] == b"\xc3\x01"
        await codec.register()
        value = codec.encode(example("site_deleted"))
        assert value[:5] == b"\0" + numbers["SiteDeleted"].to_bytes(4)
        # What it has registered itself it needn't ask for.
        await codec.prepare([value])
        assert codec.decode(value).event == example("site_deleted")


@pytest.mark.parametrize("answer", [{}, {"id": "7"}, {"id": True}, {"id": -1}, {"id": 2**32}], ids=repr)
async def test_an_answer_without_an_id_for_our_schema_is_an_outage(answer: dict[str, Any]) -> None:
    async with client(Server(httpx.Response(200, json=answer))) as registry:
        with pytest.raises(Retry, match="expected the schema's id, got "):
            await registry.register(SCHEMA)


@pytest.mark.parametrize(
    "url", ["http://:8081", "http://registry:port", "http://[::1", "http://registry:0", "http:///x"]
)
def test_an_address_that_cant_be_asked_is_refused_in_the_settings(url: str) -> None:
    with pytest.raises(ValidationError, match="expected http://host:port or https://host:port, got "):
        SchemaRegistrySettings(url=url)


async def test_what_is_known_stays_bounded_and_keeps_what_the_batch_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ASKED_MAX", 3)

    def answer(request: httpx.Request) -> httpx.Response:
        return schema_answer() if int(request.url.path.split("/")[-1]) % 2 else httpx.Response(404)

    settings = SchemaRegistrySettings(url="http://registry.test")
    async with SchemaRegistry(settings, httpx.MockTransport(answer)) as registry:
        for first in range(0, 100, 10):
            await registry.prepare(range(first, first + 10))
            assert all(registry.was_asked(one) for one in range(first, first + 10))
        assert len(registry._found) + len(registry._not_found) <= 10
