"""Events to bytes and back, in both of Avro's framings: with a registry's schema id, or with a fingerprint.

A value begins either with 0x00 and a schema id of four bytes (Confluent's framing), or with 0xC3 0x01 and the
eight bytes of the schema's fingerprint (Avro's single-object encoding). What follows is the body. The log keeps
body and fingerprint; both framings come to the same there.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from sitelog.schemas import EventSchema, load, newest
from sitelog.streams._encode import writer_of
from sitelog.streams._event import Event
from sitelog.streams._upcast import UPCASTERS, Upcaster, Upcasters
from sitelog.streams._wire import Undecodable
from sitelog.streams._writer import Writer, header, newest_writer, other_writer
from sitelog.streams.errors import Retry, SchemasAway
from sitelog.streams.registry import SchemaRegistry

__all__ = ["Codec", "Decoded", "Undecodable"]

_SINGLE_OBJECT: Final = b"\xc3\x01"
_CONFLUENT: Final = 0
_ID_END: Final = 5
_FINGERPRINT_END: Final = 10


class Decoded(NamedTuple):
    """An event, and what of its bytes the log keeps: `decode_body(fingerprint, body)` gives the event again."""

    event: Event
    fingerprint: int
    body: bytes


class Codec:
    """Knows every version of every event.

    Encoding writes the newest version. Decoding reads any version, and any other schema that the registry has
    or that was given to `learn`, if it resolves to one of our events; what comes out is of the newest version and
    has passed every check that a producer's event passes. Not for two threads at once.
    """

    def __init__(
        self,
        registry: SchemaRegistry | None = None,
        *,
        schemas: list[EventSchema] | None = None,
        upcasters: Upcasters = UPCASTERS,
    ) -> None:
        """Take the published schemas, unless others are given."""
        schemas = load() if schemas is None else schemas
        self._registry = registry
        self._newest = newest(schemas)
        self._newest_writers = {name: newest_writer(schema) for name, schema in self._newest.items()}
        self._writers = {name: writer_of(schema.schema) for name, schema in self._newest.items()}
        self._by_fingerprint: dict[int, Writer] = {}
        self._by_header: dict[bytes, Writer] = {}
        self._frames = {name: header(writer.fingerprint) for name, writer in self._newest_writers.items()}
        for writer in self._newest_writers.values():
            self._add(writer)
        for schema in schemas:
            if schema is not self._newest[schema.event_type]:
                self._learn(schema.text, upcasters.get((schema.event_type, schema.version)))

    def encode(self, event: Event) -> bytes:
        """Return the event's bytes: with a schema id after `register`, else with the fingerprint."""
        value = bytearray(self._frames[event.event_type])
        self._writers[event.event_type](event, value)
        return bytes(value)

    def decode(self, value: bytes | None) -> Decoded:
        """Return the event of a Kafka record's value.

        Raises Undecodable, with a reason of empty, wrong_bytes, unknown_schema, truncated or invalid_value; and
        Retry for a schema id that `prepare` hasn't been awaited for.
        """
        return Decoded(*self.read(value))

    def read(self, value: bytes | None) -> tuple[Event, int, bytes]:
        """Return what `decode` returns, as a plain tuple, which compiled code needn't make."""
        if not value:
            raise Undecodable("empty", "expected an Avro value, got none")
        end = _FINGERPRINT_END if value[0] else _ID_END
        writer = self._by_header.get(value[:end])
        if writer is None:
            writer = self._look_up(value)
        body = value[end:]
        return _event(writer, body), writer.fingerprint, body

    def event_type(self, value: bytes) -> str | None:
        """Return the type of event that a value's first bytes announce, None where that isn't known."""
        if not value:
            return None
        end = _FINGERPRINT_END if value[0] else _ID_END
        try:
            writer = self._by_header.get(value[:end]) or self._look_up(value)
        except (Undecodable, Retry):
            return None
        return writer.event_type

    def decode_body(self, fingerprint: int, body: bytes) -> Event:
        """Return the event that the log keeps as this body; raises what `decode` raises."""
        writer = self._by_fingerprint.get(fingerprint)
        if writer is None:
            raise Undecodable("unknown_schema", f"expected a known schema, got fingerprint {fingerprint}")
        return _event(writer, body)

    def schemas(self) -> list[tuple[int, str, str, str]]:
        """Return all schemas known so far: fingerprint, event type, version (may be empty), JSON."""
        return [(one.fingerprint, one.event_type, one.version, one.json) for one in self._by_fingerprint.values()]

    def learn(self, schema: str) -> int:
        """Take another schema that values may be written with, as JSON; return its fingerprint.

        Learning one again changes nothing. Raises Undecodable(unknown_schema) for one that isn't of our events,
        and for one that a known schema's fingerprint hides: the logical types aren't part of a fingerprint.
        """
        return self._learn(schema).fingerprint

    async def prepare(self, values: Iterable[bytes | None]) -> None:
        """Fetch the schemas that `decode` will need for these values; mostly there are none.

        Raises SchemasAway while the registry can't be reached.
        """
        values = list(values)
        if self.missing_schemas(values):
            await self.prepare_ids(frozenset(self._schema_ids(values)))

    async def prepare_ids(self, schema_ids: frozenset[int]) -> None:
        """Fetch the schemas of these ids; raises SchemasAway while the registry can't be reached."""
        if self._registry is not None:
            try:
                await self._registry.prepare(schema_ids)
            except Retry as retry:
                raise SchemasAway(str(retry), schema_ids) from retry

    def missing_schemas(self, values: Iterable[bytes | None]) -> set[int]:
        """Return the schema ids within these values that the registry hasn't been asked for."""
        if self._registry is None:
            return set()
        return {number for number in self._schema_ids(values) if not self._registry.was_asked(number)}

    def _schema_ids(self, values: Iterable[bytes | None]) -> set[int]:
        """Return the schema ids within these values whose schema isn't known here."""
        headers = {value[:_ID_END] for value in values if value and not value[0] and len(value) >= _ID_END}
        return {int.from_bytes(one[1:]) for one in headers if one not in self._by_header}

    async def register(self) -> None:
        """Have the registry give ids to our newest schemas; from then on `encode` frames with them.

        Done again, it gives the same ids. Raises Retry while the registry can't be reached, and Halt when it refuses.
        """
        if self._registry is None:
            return
        for name, schema in self._newest.items():
            number = await self._registry.register(schema)
            frame = b"\0" + number.to_bytes(4)
            self._frames[name] = frame
            self._by_header[frame] = self._newest_writers[name]

    def _add(self, writer: Writer) -> None:
        self._by_fingerprint[writer.fingerprint] = writer
        self._by_header[header(writer.fingerprint)] = writer

    def _learn(self, text: str, upcast: Upcaster | None = None) -> Writer:
        writer = other_writer(text, self._newest, upcast)
        known = self._by_fingerprint.get(writer.fingerprint)
        if known is None:
            self._add(writer)
            return writer
        if known.logical != writer.logical:
            raise Undecodable("unknown_schema", f"expected the logical types of {known.event_type} {known.version}")
        return known

    def _look_up(self, value: bytes) -> Writer:
        """Find the schema of a value that begins as none did before, or say why there is none."""
        if value[0] == _CONFLUENT and len(value) >= _ID_END:
            return self._from_registry(value[:_ID_END])
        if value[:2] == _SINGLE_OBJECT and len(value) >= _FINGERPRINT_END:
            raise Undecodable("unknown_schema", f"expected a known schema, got the header {value[:10].hex(' ')}")
        if value[0] == _CONFLUENT or _SINGLE_OBJECT.startswith(value[:2]):
            raise Undecodable("truncated", f"expected a schema id and a body, got {len(value)} bytes")
        raise Undecodable("wrong_bytes", f"expected 00 or c3 01 at the beginning, got {value[:2].hex(' ')}")

    def _from_registry(self, frame: bytes) -> Writer:
        schema_id = int.from_bytes(frame[1:])
        if self._registry is None:
            raise Undecodable("unknown_schema", f"schema id {schema_id}: expected a configured registry, got none")
        if not self._registry.knows(schema_id):
            raise Retry(f"schema id {schema_id}: expected prepare() to be awaited before decode()")
        text = self._registry.found(schema_id)
        if text is None:
            raise Undecodable("unknown_schema", f"schema id {schema_id}: expected it in the registry, got none")
        writer = self._learn(text)
        self._by_header[frame] = writer
        return writer


def _event(writer: Writer, body: bytes) -> Event:
    try:
        return writer.decode(body)
    except IndexError:
        raise Undecodable("truncated", f"expected more bytes of {writer.event_type}, got {len(body)}") from None
    except UnicodeDecodeError as error:
        raise Undecodable("wrong_bytes", f"expected UTF-8, got {error.reason} at byte {error.start}") from None
