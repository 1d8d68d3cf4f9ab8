"""JSON text for jsonb columns, and when two of them say the same."""

from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import BaseModel

from sitelog.projections._columns import Json


def json_of(value: Mapping[str, Any] | tuple[Any, ...] | None) -> Json | None:
    """Return the JSON text of a map or a tuple of records or numbers, None for None."""
    return None if value is None else Json(orjson.dumps(value, default=_plain).decode())


def same_json(one: Any, other: Any) -> bool:
    """Tell whether two texts are the same JSON: Postgres gives jsonb back with spaces and an order of its own."""
    if not (isinstance(one, str) and isinstance(other, str) and one[:1] in "{[" and other[:1] in "{["):
        return False
    try:
        return bool(orjson.loads(one) == orjson.loads(other))
    except orjson.JSONDecodeError:
        return False


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.__dict__
    raise TypeError(f"no JSON for {type(value).__name__}")
