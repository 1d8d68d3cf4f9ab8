"""A row class says which columns its table has: one NamedTuple field, one column."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any, NewType, get_args, get_type_hints

Json = NewType("Json", str)
"""JSON text; a jsonb column."""

POSTGRES_TYPES: dict[Any, str] = {
    str: "text",
    int: "bigint",
    float: "double precision",
    bool: "boolean",
    datetime: "timestamptz",
    date: "date",
    Decimal: "numeric",
    Json: "jsonb",
}


def columns(row: type[Any]) -> dict[str, tuple[str, bool]]:
    """Return column -> (Postgres type, nullable) for a NamedTuple class.

    Raises TypeError for a field whose type no column can hold.
    """
    return {name: _column(row, name, hint) for name, hint in get_type_hints(row).items()}


def _column(row: type[Any], name: str, hint: Any) -> tuple[str, bool]:
    choices = get_args(hint)
    nullable = type(None) in choices
    plain = next((choice for choice in choices if choice is not type(None)), hint) if nullable else hint
    if plain not in POSTGRES_TYPES:
        known = ", ".join(kind.__name__ for kind in POSTGRES_TYPES)
        raise TypeError(f"{row.__name__}.{name}: expected one of {known} (or that | None), got {hint}")
    return POSTGRES_TYPES[plain], nullable
