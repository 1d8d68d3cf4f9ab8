"""JSON text for jsonb columns, and when two of them say the same."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson
from pydantic import BaseModel

from sitelog.projections._columns import Json


def json_of(value: Mapping[str, Any] | tuple[Any, ...] | None) -> Json | None:
    """Return the JSON text of a map or a tuple of records or numbers, None for None."""
    return None if value is None else Json(orjson.dumps(value, default=_plain).decode())


def same(one: Any, other: Any, *, is_json: bool) -> bool:
    """Tell whether two values of a column are the same: of a jsonb column the same JSON, its numbers exactly.

    Postgres gives JSON back with spaces, an order and a spelling of numbers of its own.
    """
    if one == other:
        return True
    if not (is_json and isinstance(one, str) and isinstance(other, str)):
        return False
    try:
        return bool(_exact(one) == _exact(other))
    except (ValueError, ArithmeticError, RecursionError):
        return False


def _exact(text: str) -> Any:
    return json.loads(text, parse_int=_number, parse_float=_number)


def _number(text: str) -> tuple[Decimal]:
    # Wrapped, as Python's True is 1.
    return (Decimal(text),)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.__dict__
    raise TypeError(f"no JSON for {type(value).__name__}")
