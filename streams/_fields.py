"""What a field may hold, for producers: the rules that Avro has no words for.

Each type stands for a `rule` or a type of the schema files; `_generate` writes them into `events`.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, TypeVar
from uuid import UUID

import orjson
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, ValidationInfo

TIMESTAMP_MIN = datetime(2000, 1, 1, tzinfo=UTC)
"""The first moment that an event may carry: anything earlier is a unit mixed up, such as seconds for ms."""
TIMESTAMP_END = datetime(2100, 1, 1, tzinfo=UTC)
"""The first moment that an event may not carry any more."""
ID_CHARACTERS_MAX = 100
"""The length of the guide's VARCHAR(100) columns that hold entity ids."""

_TIME_OF_DAY = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d|24:00", re.ASCII)
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NUMBER = re.compile(r"\d+(?:\.(\d+))?(?:[eE]([+-]?)0*(\d+))?")
_SUSPICIOUS = re.compile(r"[eE][+-]?\d{4}|(?<!\d)\d{15000}")
"""What every number has that `numeric` may not hold, and nearly no other text."""
_DECIMALS_MAX = 16_383
"""Of a `numeric`, in which jsonb keeps its numbers."""
_EXPONENT_DIGITS_MAX = 5
_YEAR = re.compile(r"[0-9]{4}-")
_Field = TypeVar("_Field")


def _text(value: str) -> str:
    """Refuse what Postgres's text and UTF-8 can't hold."""
    if "\x00" in value:
        raise ValueError("expected text without the NUL character")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError("expected text that UTF-8 can hold, got a lone surrogate") from error
    return value


def _uuid(value: str) -> str:
    try:
        canonical = str(UUID(value))
    except ValueError as error:
        raise ValueError("expected a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057") from error
    if value != canonical:
        raise ValueError(f"expected the canonical form {canonical}")
    return value


def _no_number(value: Any) -> Any:
    """Refuse a bare number, as text too: nobody can tell seconds from milliseconds, or days from either."""
    # Of a word pydantic says itself that it is no time.
    no_year = isinstance(value, str) and not (_YEAR.match(value) or value.isalpha())
    if no_year or isinstance(value, int | float | Decimal | bytes):
        raise ValueError("expected ISO 8601 text such as 2025-07-24 or 2025-07-24T12:00:00Z")
    return value


def _no_float(value: Any) -> Any:
    """Refuse a float for money: it may have been rounded before it came here."""
    if isinstance(value, float):
        raise ValueError('expected money as a string such as "12.50"')  # noqa: TRY004 - pydantic takes no TypeError
    return value


def _sane(value: datetime) -> datetime:
    # Before it is converted: the first and last hours of all overflow there.
    if not TIMESTAMP_MIN <= value < TIMESTAMP_END:
        raise ValueError(f"expected a time from {TIMESTAMP_MIN:%Y} until {TIMESTAMP_END:%Y}")
    return value.astimezone(UTC)


def is_time_of_day(value: str) -> bool:
    """Tell whether it is HH:MM, from 00:00 to 24:00."""
    return _TIME_OF_DAY.fullmatch(value) is not None


def _time_of_day(value: str) -> str:
    if not is_time_of_day(value):
        raise ValueError("expected HH:MM from 00:00 to 24:00")
    return value


def geojson_problem(value: str) -> str | None:
    """Say why this text is no GeoJSON object, or None if it may be one: its coordinates aren't looked at."""
    if "\\u0000" in value and _NUL.search(value):
        return "the character NUL, which Postgres's jsonb can't hold"
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        return str(error)
    if not isinstance(parsed, dict) or not isinstance(parsed.get("type"), str):
        return 'JSON without a "type"'
    if _SUSPICIOUS.search(value) and any(map(_is_beyond_numeric, _NUMBER.finditer(_STRING.sub('""', value)))):
        return f"a number of more than {_DECIMALS_MAX} decimals, which Postgres's jsonb can't hold"
    return None


def _is_beyond_numeric(number: re.Match[str]) -> bool:
    decimals, sign, exponent = number.groups("")
    if len(exponent) > _EXPONENT_DIGITS_MAX:
        return True
    return len(decimals) - int(f"{sign}{exponent or 0}") > _DECIMALS_MAX


def _geojson(value: str) -> str:
    problem = geojson_problem(value)
    if problem is not None:
        raise ValueError(f"expected a GeoJSON object as JSON text, got {problem}")
    return value


def _some_each_once(value: tuple[_Field, ...]) -> tuple[_Field, ...]:
    if not value:
        raise ValueError("expected at least one field")
    if len(set(value)) != len(value):
        raise ValueError("expected each field once")
    return value


def not_before(first: str) -> Callable[[date, ValidationInfo], date]:
    """Return a validator that refuses a day before that of the field `first`, where that one is given."""

    def check(value: date, info: ValidationInfo) -> date:
        earliest = info.data.get(first)
        if earliest is not None and value < earliest:
            raise ValueError(f"expected a day not before {first}, which is {earliest}")
        return value

    return check


NO_FLOAT = BeforeValidator(_no_float)
Text = Annotated[str, AfterValidator(_text)]
Id = Annotated[str, Field(min_length=1, max_length=ID_CHARACTERS_MAX), AfterValidator(_text)]
Uuid = Annotated[str, AfterValidator(_uuid)]
Timestamp = Annotated[AwareDatetime, BeforeValidator(_no_number), AfterValidator(_sane)]
Day = Annotated[date, BeforeValidator(_no_number)]
Int = Annotated[int, Field(strict=True, ge=-(2**31), lt=2**31)]
IntCount = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
Long = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
LongCount = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Double = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Latitude = Annotated[Double, Field(ge=-90, le=90)]
Longitude = Annotated[Double, Field(ge=-180, le=180)]
TimeOfDay = Annotated[str, AfterValidator(_time_of_day)]
GeoJson = Annotated[Text, AfterValidator(_geojson)]
ChangedFields = Annotated[tuple[_Field, ...], AfterValidator(_some_each_once)]
