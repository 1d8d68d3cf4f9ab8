"""A schema registry that speaks Confluent's REST interface: schemas by id, and ids for our own schemas."""

from collections.abc import Iterable
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from sitelog.schemas import EventSchema
from sitelog.streams._kafka_settings import SchemaRegistrySettings
from sitelog.streams.errors import Halt, Retry

if TYPE_CHECKING:
    import httpx

_NOT_FOUND: Final = 404
_CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"
# What Confluent's framing has room for.
_ID_END: Final = 2**32
# An id that isn't there may be a registry's follower that lags: ask again, but not for each event.
_NOT_FOUND_SECONDS: Final = 30.0
# Far more than a registry has schemas of ours; what keeps wrong ids from filling the memory.
_ASKED_MAX: Final = 1_000


class SchemaRegistry:
    """Asks a registry for schemas, each once.

    Use it as an async context manager, within one event loop. Decoding is synchronous and can't wait for an
    answer: `await Codec.prepare(values)` asks for what `Codec.decode` will look up here.
    """

    def __init__(self, settings: SchemaRegistrySettings, transport: "httpx.AsyncBaseTransport | None" = None) -> None:
        """Take the settings; `transport` is httpx's own, for tests and proxies."""
        import httpx  # noqa: PLC0415 - a third of a second that only those with a registry pay

        auth = None
        if settings.username is not None and settings.password is not None:
            auth = httpx.BasicAuth(settings.username, settings.password.get_secret_value())
        self._url = settings.url.rstrip("/")
        self._errors = (httpx.TransportError,)
        self._client = httpx.AsyncClient(
            auth=auth,
            timeout=settings.timeout_ms / 1_000,
            transport=transport,
            headers={"Accept": _CONTENT_TYPE, "Content-Type": _CONTENT_TYPE},
        )
        self._found: dict[int, str] = {}
        self._not_found: dict[int, float] = {}

    async def __aenter__(self) -> Self:
        """Return itself; the first connection is opened when it is needed."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._client.aclose()

    def knows(self, schema_id: int) -> bool:
        """Tell whether there was an answer for this id, be it that there is none, and however old."""
        return schema_id in self._found or schema_id in self._not_found

    def was_asked(self, schema_id: int) -> bool:
        """Tell whether there is an answer for this id that needn't be asked for again."""
        if schema_id in self._found:
            return True
        return monotonic() - self._not_found.get(schema_id, -_NOT_FOUND_SECONDS) < _NOT_FOUND_SECONDS

    def found(self, schema_id: int) -> str | None:
        """Return a schema as JSON that was asked for, or None where the registry has none of this id."""
        return self._found.get(schema_id)

    async def prepare(self, schema_ids: Iterable[int]) -> None:
        """Ask for those ids that weren't asked for yet; `found` has the answers then.

        Raises Retry while the registry can't be reached or answers with a failure of its own, and Halt when it
        refuses us. What was answered before stays known.
        """
        wanted = set(schema_ids)
        for schema_id in sorted(wanted):
            if not self.was_asked(schema_id):
                await self._ask(schema_id)
        self._forget(wanted)

    async def register(self, schema: EventSchema) -> int:
        """Return the registry's id of this schema, which is given to it if it is new.

        The subject is `<topic>-<record>`, Confluent's TopicRecordNameStrategy: a topic of ours carries several
        records, and a registry compares the versions within one subject only. Raises what `prepare` raises.
        """
        subject = f"{schema.topic}-{schema.schema['namespace']}.{schema.record}"
        answer = await self._request("POST", f"/subjects/{subject}/versions", json={"schema": schema.text})
        number = _content(answer).get("id")
        if type(number) is not int or not 0 <= number < _ID_END:
            raise Retry(f"schema registry {answer.url}: expected the schema's id, got {answer.text[:200]}")
        return number

    async def _ask(self, schema_id: int) -> None:
        answer = await self._request("GET", f"/schemas/ids/{schema_id}")
        if answer.status_code == _NOT_FOUND:
            self._not_found[schema_id] = monotonic()
            return
        content = _content(answer)
        if content.get("schemaType", "AVRO") == "AVRO" and not content.get("references"):
            self._found[schema_id] = str(content.get("schema"))
        else:
            # As good as none for us; `Codec.learn` couldn't read it.
            self._not_found[schema_id] = monotonic()

    async def _request(self, method: str, path: str, json: Any = None) -> "httpx.Response":
        where = f"schema registry {self._url}: {method} {path}"
        try:
            answer = await self._client.request(method, self._url + path, json=json)
        except self._errors as error:
            raise Retry(f"{where}: expected an answer, got {type(error).__name__}") from error
        if answer.status_code == _NOT_FOUND and method == "GET":
            return answer
        if answer.is_success:
            return answer
        refusal = f"{where}: expected success, got {answer.status_code} {answer.text[:200]}"
        if answer.status_code in (408, 429) or answer.is_server_error:
            raise Retry(refusal)
        raise Halt(refusal)

    def _forget(self, wanted: set[int]) -> None:
        """Keep both memories bounded, the oldest going first, but never what the next batch needs."""
        for memory in (self._found, self._not_found):
            surplus = len(memory) - _ASKED_MAX
            for schema_id in [one for one in memory if one not in wanted][: max(surplus, 0)]:
                memory.pop(schema_id)


def _content(answer: "httpx.Response") -> dict[str, Any]:
    """Return the JSON object; something else isn't a registry's answer, but a proxy's or a log-in page."""
    try:
        content = answer.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise Retry(f"schema registry {answer.url}: expected a JSON object, got {answer.text[:200]}")
    return content
