"""Schemas that values were written with: which there are, and how each one is read."""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

from fastavro import parse_schema, schemaless_reader
from fastavro.read import SchemaResolutionError
from fastavro.schema import SchemaParseException, UnknownType, fingerprint, to_parsing_canonical_form
from pydantic import ValidationError

from sitelog.schemas import EventSchema
from sitelog.streams._decode import DECODERS
from sitelog.streams._event import Event
from sitelog.streams._upcast import Upcaster
from sitelog.streams._wire import Undecodable
from sitelog.streams.events import EVENT_TYPES

_FINGERPRINT: Final = struct.Struct("<q")
_EVENT_TYPES_BY_RECORD: Final = {event.__name__: name for name, event in EVENT_TYPES.items()}
# Nothing but a mistake or an attack nests deeper.
_DEPTH_MAX: Final = 32
# By itself: fastavro reads each byte of a number alone, and super() takes longer than that.
_read_bytes: Final = BytesIO.read


@dataclass(frozen=True, slots=True)
class Writer:
    """A schema that values are written with, and how a body of it becomes an event of the newest version."""

    fingerprint: int
    event_type: str
    version: str
    json: str
    logical: str
    decode: Callable[[bytes], Event]


def fingerprint_of(schema: Any) -> int:
    """Return the CRC-64-AVRO fingerprint of the schema's canonical form, as a signed number of 64 bits.

    The `avro` package's own `fingerprint()` differs: it leaves a primitive with a logical type as an object,
    against the specification's rule PRIMITIVES.
    """
    canonical = to_parsing_canonical_form(schema)
    number: int = _FINGERPRINT.unpack(bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO")))[0]
    return number


def header(number: int) -> bytes:
    """Return the ten bytes before a body in Avro's single-object encoding."""
    return b"\xc3\x01" + _FINGERPRINT.pack(number)


def newest_writer(schema: EventSchema) -> Writer:
    """Return the writer of an event's newest version: read by generated code."""
    return _writer(schema.schema, schema.event_type, schema.text, DECODERS[schema.event_type])


def other_writer(text: str, newest: Mapping[str, EventSchema], upcast: Upcaster | None) -> Writer:
    """Return the writer of an older version or of another team's schema: read by Avro's schema resolution.

    Raises Undecodable for a schema that isn't of our events, or that can't be read safely.
    """
    try:
        schema = _from_json(text)
        parsed = parse_schema(schema)
        event_type = _event_type(schema)
        _refuse_dangerous(parsed)
    except (ValueError, SchemaParseException, UnknownType, RecursionError, TypeError, KeyError) as error:
        raise Undecodable("unknown_schema", f"expected an Avro schema, got {error!r}"[:500]) from error
    decode = _resolver(parsed, newest[event_type], upcast)
    return _writer(schema, event_type, text, decode)


def _from_json(text: str) -> Any:
    schema = json.loads(text)
    if isinstance(schema, dict):
        # fastavro would take it at its word, and its types with it.
        schema.pop("__fastavro_parsed", None)
    return schema


def _event_type(schema: Any) -> str:
    name = str(schema.get("name") if isinstance(schema, dict) else schema)
    event_type = _EVENT_TYPES_BY_RECORD.get(name.rpartition(".")[2])
    if event_type is None:
        raise Undecodable("unknown_schema", f"expected a record called as one of our events, got {name[:100]}")
    return event_type


def _writer(schema: Any, event_type: str, text: str, decode: Callable[[bytes], Event]) -> Writer:
    version = str(schema.get("version", ""))
    return Writer(fingerprint_of(schema), event_type, version, text, _logical_form(schema), decode)


def _logical_form(schema: Any) -> str:
    """Return what decides how bytes are read, however it is spelt: the fingerprint leaves the logical types out."""
    parsed = parse_schema(schema)
    return json.dumps([to_parsing_canonical_form(parsed), _logical_types(parsed)])


def _logical_types(schema: Any) -> list[Any]:
    """Return what each type within a parsed schema is beyond Avro's own types: most of them nothing."""
    if isinstance(schema, list):
        return [_logical_types(branch) for branch in schema]
    if isinstance(schema, str):
        return [None]
    own = [schema["logicalType"], schema.get("precision"), schema.get("scale", 0)] if "logicalType" in schema else None
    inner = [schema[name] for name in ("items", "values") if name in schema]
    inner += [field["type"] for field in schema.get("fields", [])]
    return [own, *map(_logical_types, inner)]


def _resolver(written: Any, newest: EventSchema, upcast: Upcaster | None) -> Callable[[bytes], Event]:
    """Return how bodies of another schema are read: resolved, lifted by hand if need be, and fully checked."""
    wanted = parse_schema(dict(newest.schema))
    event = EVENT_TYPES[newest.event_type]

    def decode(body: bytes) -> Event:
        values = _read(body, written, wanted)
        if upcast is not None:
            values = upcast(_read(body, written, None), values)
        values["event_id"] = str(values["event_id"]).lower()
        try:
            return event.model_validate(values)
        except ValidationError as error:
            raise Undecodable("invalid_value", _first_problem(error)) from error

    return decode


class _Body(BytesIO):
    """A body that isn't read behind its end: fastavro doesn't look whether what it skips is there."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return that many bytes, or raise EOFError."""
        found = _read_bytes(self, size)
        if size != len(found):
            raise EOFError
        return found


def _read(body: bytes, written: Any, wanted: Any) -> dict[str, Any]:
    stream = _Body(body)
    try:
        values: Any = schemaless_reader(stream, written, wanted)
    except SchemaResolutionError as error:
        raise Undecodable("unknown_schema", f"expected a schema that resolves to ours: {error}"[:500]) from error
    except (ValueError, LookupError, ArithmeticError, EOFError, struct.error, TypeError) as error:
        if stream.tell() == len(body) and not isinstance(error, UnicodeDecodeError):
            raise IndexError from error  # it wanted more
        raise Undecodable("wrong_bytes", f"expected bytes of the writer's schema, got {error!r}"[:500]) from error
    if stream.tell() != len(body):
        raise Undecodable("wrong_bytes", f"the end: expected {stream.tell()} bytes, got {len(body)}")
    return dict(values)


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}"[:500]


def _refuse_dangerous(schema: Any, depth: int = 0, open_records: tuple[str, ...] = ()) -> bool:
    """Return whether it is null, which takes no byte; refuse what lets a few bytes ask for endless work."""
    if depth > _DEPTH_MAX:
        raise ValueError(f"expected at most {_DEPTH_MAX} levels")
    if isinstance(schema, list):
        for branch in schema:
            _refuse_dangerous(branch, depth + 1, open_records)
        return False
    if isinstance(schema, str):
        if schema in open_records:
            raise ValueError(f"expected no record within itself, got {schema}")
        return schema == "null"
    inner = schema.get("items", schema.get("values"))
    if inner is not None and _refuse_dangerous(inner, depth + 1, open_records) and schema["type"] == "array":
        raise ValueError("expected array items of a byte at least, got null")
    if "fields" in schema:
        open_records = (*open_records, schema["name"])
        nulls = [_refuse_dangerous(field["type"], depth + 1, open_records) for field in schema["fields"]]
        empty = all(nulls)
    else:
        empty = schema.get("size", 1) < 1
    # Refused wherever it is: later fields may name it as the item of an array, or twice in each of many levels.
    if empty:
        raise ValueError(f"expected records and fixed types of a byte at least, got {schema['name']}")
    return bool(schema["type"] == "null")
