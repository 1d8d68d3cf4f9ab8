"""The latest state of each site in one table, as somebody writes it who wants no more: for plain Faust and the loop."""

from io import BytesIO
from typing import Any, Final

from fastavro import parse_schema, schemaless_reader

from sitelog.schemas import load
from sitelog.streams._writer import fingerprint_of, header

HEADER_BYTES: Final = 10
"""Of Avro's single-object encoding: two that mark it, and the schema's fingerprint."""

COLUMNS: Final = {
    "site_id": "text",
    "site_name": "text",
    "address_line1": "text",
    "city": "text",
    "region": "text",
    "postal_code": "text",
    "country": "text",
    "latitude": "double precision",
    "longitude": "double precision",
    "territory_id": "text",
    "parking_capacity": "bigint",
    "facility_type": "text",
    "market_segment": "text",
    "version": "bigint",
}
_OF_FIELD: Final = {
    "name": 1,
    "territory_id": 9,
    "parking_capacity": 10,
    "facility_type": 11,
    "market_segment": 12,
}
_VERSION: Final = 13

SETUP_SQL: Final = f"""
CREATE TABLE public.latest ({", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())}, PRIMARY KEY (site_id));
CREATE TABLE public.latest_position (partition integer PRIMARY KEY, next_offset bigint NOT NULL);
GRANT SELECT, INSERT, UPDATE ON public.latest, public.latest_position TO app_user;
"""
POSITION_SQL: Final = """
INSERT INTO public.latest_position AS t (partition, next_offset)
VALUES ($1, $2)
ON CONFLICT (partition) DO UPDATE SET next_offset = excluded.next_offset
"""


_MERGED: Final = [name for name in COLUMNS if name not in {"site_id", "version"}]
UPSERT_SQL: Final = f"""
INSERT INTO public.latest AS t ({", ".join(COLUMNS)})
SELECT * FROM unnest({", ".join(f"${number}::{kind}[]" for number, kind in enumerate(COLUMNS.values(), 1))})
ON CONFLICT (site_id) DO UPDATE
SET {", ".join(f"{name} = coalesce(excluded.{name}, t.{name})" for name in _MERGED)},
    version = t.version + excluded.version
"""  # noqa: S608 - literals of this file


class Reader:
    """Reads events with fastavro, as any service would that has the schemas."""

    def __init__(self) -> None:
        self._schemas = {
            header(fingerprint_of(schema.schema)): (schema.event_type, parse_schema(dict(schema.schema)))
            for schema in load()
        }

    def read(self, value: bytes) -> tuple[str, dict[str, Any]]:
        """Return the event's type and its fields. Raises KeyError for an unknown schema."""
        event_type, schema = self._schemas[value[:HEADER_BYTES]]
        stream = BytesIO(value)
        stream.seek(HEADER_BYTES)
        return event_type, schemaless_reader(stream, schema)  # type: ignore[return-value]


class Latest:
    """Gathers what some events do to their sites. Null means unchanged: nobody here sets a field to null."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Any]] = {}

    def take(self, event_type: str, event: dict[str, Any]) -> None:
        """Take one event; raises ValueError for a type that these programs don't know."""
        site_id = event["site_id"]
        row = self._rows.get(site_id)
        if row is None:
            row = self._rows[site_id] = [site_id, *[None] * (len(COLUMNS) - 2), 0]
        row[_VERSION] += 1
        if event_type == "site_updated":
            values = event["new_values"]
            for field in event["changed_fields"]:
                row[_OF_FIELD[field]] = values[field]
        elif event_type == "site_created":
            row[1:_VERSION] = _created(event["site_data"])
        else:
            raise ValueError(f"expected site_created or site_updated, got {event_type}")

    def site_ids(self) -> list[str]:
        """All sites concerned, sorted, so that two writers can't lock each other's rows crosswise."""
        return sorted(self._rows)

    def row(self, site_id: str) -> dict[str, Any]:
        """One site's columns; `version` is the number of its events that were taken. Raises KeyError."""
        return dict(zip(COLUMNS, self._rows[site_id], strict=True))

    def arrays(self) -> list[tuple[Any, ...]]:
        """One array per column, in the order of `site_ids`."""
        return list(zip(*(self._rows[site_id] for site_id in self.site_ids()), strict=True))


def _created(values: dict[str, Any]) -> list[Any]:
    address, place = values["address"], values["location_coordinates"]
    return [
        values["name"],
        *(address[part] for part in ("line1", "city", "region", "postal_code", "country")),
        place["latitude"],
        place["longitude"],
        *(values[name] for name in ("territory_id", "parking_capacity", "facility_type", "market_segment")),
    ]
