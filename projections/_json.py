"""JSON text for jsonb columns."""

from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import BaseModel

from sitelog.projections._columns import Json


def json_of(value: Mapping[str, Any] | tuple[Any, ...] | None) -> Json | None:
    """Return the JSON text of a map or a tuple of records or numbers, None for None."""
    return None if value is None else Json(orjson.dumps(value, default=_plain).decode())


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.__dict__
    raise TypeError(f"no JSON for {type(value).__name__}")
