"""What the read models must hold, told a second time: plain dictionaries, and no code shared with projections/.

`Oracle().apply(event, append_time=…)` for every event in the order of its topic, then `compare(connection, oracle)`.
Only the order within one site or territory matters. JSON columns are Python objects here.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

import orjson

TABLES = {
    "customer_sites": ("site_id",),
    "contracts": ("site_id", "contract_id"),
    "contacts": ("site_id", "contact_id"),
    "performance_history": ("site_id", "period_start", "period_end"),
    "territories": ("territory_id",),
    "territory_assignments": ("site_id", "valid_from"),
}
"""Every read model and its key."""

JSON_COLUMNS = {
    "operating_hours",
    "billing_configuration",
    "occupancy_rates",
    "seasonal_patterns",
    "boundary",
    "field_versions",
}

CREATIONS = {
    "site_created": "customer_sites",
    "contract_created": "contracts",
    "contact_added": "contacts",
    "territory_created": "territories",
}
"""Which event makes the row that other events of the table need."""

ADDRESS = {
    "line1": "address_line1",
    "line2": "address_line2",
    "city": "city",
    "region": "region",
    "postal_code": "postal_code",
    "country": "country",
}
MEASURES = (
    "monthly_revenue",
    "currency",
    "occupancy_rates",
    "seasonal_patterns",
    "growth_trends",
    "labor_productivity",
    "cost_efficiency",
    "service_quality",
    "customer_satisfaction",
)


class TooEarly(Exception):  # noqa: N818 - it is no error: the event waits
    """The row that the event is about isn't there yet."""


class Refusal(NamedTuple):
    """One field of one event that didn't meet what its producer had seen."""

    event_id: str
    table: str
    field: str
    reason: str
    resolution: str


@dataclass
class Row:
    values: dict[str, Any]
    version: int
    written: dict[str, int]
    """Version at which each field was written last."""
    updated_at: datetime | None
    event_id: str
    """Of the last event that changed it."""

    @property
    def field_versions(self) -> dict[str, int] | None:
        """What is kept of `written`: that a row's first version wrote all of it goes without saying."""
        return {name: version for name, version in self.written.items() if (name, version) != ("*", 1)} or None


@dataclass
class Oracle:
    policy: str = "last_write_wins"
    rows: dict[str, dict[tuple[Any, ...], Row]] = field(default_factory=lambda: {table: {} for table in TABLES})
    conflicts: list[Refusal] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    """Event ids in the order in which they were applied: per log partition, the log."""
    waiting: dict[str, list[Any]] = field(default_factory=dict)
    """By site or territory: events that came before what they need, and those behind them. None: unreadable."""
    stopped: set[str] = field(default_factory=set)
    duplicates: int = 0
    _seen: set[str] = field(default_factory=set)

    def apply(self, event: Any, *, append_time: datetime | None = None) -> None:
        """Take the next event of its entity; one that was applied before changes nothing."""
        if event.event_id in self._seen:
            self.duplicates += 1
        elif event.entity_id in self.stopped:
            return
        elif event.entity_id not in self.waiting:
            if not self._applies(event, append_time):
                self.waiting[event.entity_id] = [(event, append_time)]
        elif self._creates_what_is_missing(event) and self._applies(event, append_time):
            for waiting, since in self.waiting.pop(event.entity_id):
                if waiting is None:
                    self.stop(event.entity_id)
                else:
                    self.apply(waiting, append_time=since)
        else:
            self.waiting[event.entity_id].append((event, append_time))

    def stop(self, entity_id: str) -> None:
        """Take a record of this entity that nobody can read: nothing after it is applied."""
        if entity_id in self.waiting:
            self.waiting[entity_id].append((None, None))
        else:
            self.stopped.add(entity_id)

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Every table's rows in key order: the domain's columns, versions, and updated_at where it is known."""
        return {
            table: [
                row.values
                | {"version": row.version, "field_versions": row.field_versions}
                | ({} if row.updated_at is None else {"updated_at": row.updated_at})
                for _, row in sorted(rows.items())
            ]
            for table, rows in self.rows.items()
        }

    def _applies(self, event: Any, append_time: datetime | None) -> bool:
        try:
            Change(self, event, append_time).make()
        except TooEarly:
            return False
        self._seen.add(event.event_id)
        self.applied.append(event.event_id)
        return True

    def _creates_what_is_missing(self, event: Any) -> bool:
        table = CREATIONS.get(event.event_type)
        return table is not None and tuple(getattr(event, column) for column in TABLES[table]) not in self.rows[table]


@dataclass
class Change:
    """One event's effect on all tables; it finds out that it came too early before it changes anything."""

    oracle: Oracle
    event: Any
    append_time: datetime | None

    def make(self) -> None:
        getattr(self, self.event.event_type)()

    # Sites.

    def site_created(self) -> None:
        event = self.event
        values = {"site_id": event.site_id, "created_at": event.event_timestamp, "deleted_at": None}
        for name in SITE_FIELDS:
            values |= site_columns(name, event.site_data)
        if self._create("customer_sites", values, "deleted_at"):
            self._contract_comes_along(event.site_data.contract_info)
            self._belongs_to(event.site_data.territory_id, event.event_timestamp)

    def site_updated(self) -> None:
        event = self.event
        new = event.new_values
        kept = self._merge("customer_sites", site_columns, event.changed_fields, event.old_values, new)
        if "contract_info" in kept:
            self._contract_comes_along(new and new.contract_info, ended="stays")
        if "territory_id" in kept:
            self._belongs_to(new and new.territory_id, event.event_timestamp)

    def site_assigned_to_territory(self) -> None:
        event = self.event
        old = None if event.previous_territory_id is None else Named(territory_id=event.previous_territory_id)
        new = Named(territory_id=event.territory_id)
        if self._merge("customer_sites", site_columns, ["territory_id"], old, new):
            self._belongs_to(
                event.territory_id,
                event.effective_at or event.event_timestamp,
                reason=event.reason,
                approved_by=event.approved_by,
            )

    def site_deleted(self) -> None:
        self._touch_site(deleted_at=self.event.event_timestamp)
        self._belongs_to(None, self.event.event_timestamp)

    def _touch_site(self, **values: Any) -> None:
        """Everything that happens at a site counts as one of its versions."""
        self._replace("customer_sites", values, {"contract_info": ("contract_id",)})

    def _belongs_to(
        self, territory_id: str | None, since: datetime, reason: str | None = None, approved_by: str | None = None
    ) -> None:
        """From `since` on the site belongs to this territory, and whatever was planned after that is off."""
        site_id = self.event.site_id
        rows = self.oracle.rows["territory_assignments"]
        before = {key: row for key, row in rows.items() if key[0] == site_id}
        after = {}
        for key, row in before.items():
            if key[1] < since:
                until = row.values["valid_until"]
                after[key] = row.values | {"valid_until": since if until is None or until > since else until}
        if territory_id is not None:
            after[site_id, since] = {
                "site_id": site_id,
                "valid_from": since,
                "valid_until": None,
                "territory_id": territory_id,
                "reason": reason,
                "approved_by": approved_by,
            }
        for key in before.keys() - after.keys():
            del rows[key]
        for key, values in after.items():
            known = before.get(key)
            if known is None or known.values != values:
                rows[key] = self._row(values, known.version + 1 if known else 1, {})

    # Contracts.

    def contract_created(self) -> None:
        event = self.event
        self._need("customer_sites")
        key = {"site_id": event.site_id, "contract_id": event.contract_id}
        if self._create("contracts", key | contract_values(event.contract_data), None):
            self._touch_site(contract_id=event.contract_id)

    def contract_updated(self) -> None:
        event = self.event
        self._need("customer_sites")
        if self._merge("contracts", contract_columns, event.changed_fields, event.old_values, event.new_values):
            self._touch_site()

    def contract_terminated(self) -> None:
        self._need("customer_sites")
        ended = {"terminated_on": self.event.termination_date, "termination_reason": self.event.reason}
        self._replace("contracts", ended, {})
        self._touch_site()

    def _contract_comes_along(self, info: Any, ended: Literal["stays", "begins again"] = "begins again") -> None:
        if info is not None:
            key = (self.event.site_id, info.contract_id)
            values = {"site_id": key[0], "contract_id": key[1]} | contract_values(info)
            known = self.oracle.rows["contracts"].get(key)
            if known is not None and ended == "stays":
                values |= {name: known.values[name] for name in ("terminated_on", "termination_reason")}
            self._replace("contracts", values, {name: (name,) for name in CONTRACT_FIELDS}, must_exist=False)

    # Contacts and figures.

    def contact_added(self) -> None:
        event = self.event
        self._need("customer_sites")
        values = {"site_id": event.site_id, "contact_id": event.contact_id, "removed_at": None}
        for name in CONTACT_FIELDS:
            values[name] = getattr(event.contact, name)
        if self._create("contacts", values, "removed_at"):
            self._touch_site()

    def contact_changed(self) -> None:
        event = self.event
        self._need("customer_sites")
        if self._merge("contacts", plain_column, event.changed_fields, event.old_values, event.new_values):
            self._touch_site()

    def contact_removed(self) -> None:
        self._need("customer_sites")
        self._replace("contacts", {"removed_at": self.event.event_timestamp}, {})
        self._touch_site()

    def performance_recorded(self) -> None:
        event = self.event
        self._need("customer_sites")
        values = {column: getattr(event, column) for column in TABLES["performance_history"]}
        for name in MEASURES:
            value = getattr(event.metrics, name)
            values[name] = list(value) if isinstance(value, tuple) else value
        self._replace("performance_history", values, {}, must_exist=False)
        self._touch_site()

    # Territories.

    def territory_created(self) -> None:
        event = self.event
        values = {"territory_id": event.territory_id, "created_at": event.event_timestamp, "deleted_at": None}
        for name in TERRITORY_FIELDS:
            values |= territory_columns(name, event.territory_data)
        self._create("territories", values, "deleted_at")

    def territory_updated(self) -> None:
        event = self.event
        changed, old, new = event.changed_fields, event.old_values, event.new_values
        self._merge("territories", territory_columns, changed, old, new)

    def territory_boundary_changed(self) -> None:
        event = self.event
        old = None if event.old_boundary is None else Named(boundary=event.old_boundary)
        new = Named(boundary=event.boundary)
        self._merge("territories", territory_columns, ["boundary"], old, new)

    def territory_deleted(self) -> None:
        self._replace("territories", {"deleted_at": self.event.event_timestamp}, {})

    # What all of them have in common.

    def _key(self, table: str) -> tuple[Any, ...]:
        return tuple(getattr(self.event, column) for column in TABLES[table])

    def _row(self, values: dict[str, Any], version: int, written: dict[str, int]) -> Row:
        return Row(values, version, written, self.append_time, self.event.event_id)

    def _need(self, table: str) -> Row:
        row = self.oracle.rows[table].get(self._key(table))
        if row is None:
            raise TooEarly
        return row

    def _create(self, table: str, values: dict[str, Any], tombstone: str | None) -> bool:
        """Begin a row. One that is there and alive is a conflict: the policy says which of the two stays."""
        key = tuple(values[column] for column in TABLES[table])
        known = self.oracle.rows[table].get(key)
        if known is not None and (tombstone is None or known.values[tombstone] is None):
            self._refuse(table, "*", "exists", self.oracle.policy)
            if self.oracle.policy == "reject":
                return False
        version = known.version + 1 if known else 1
        self.oracle.rows[table][key] = self._row(values, version, {"*": version})
        return True

    def _replace(
        self, table: str, values: dict[str, Any], fields: dict[str, tuple[str, ...]], *, must_exist: bool = True
    ) -> None:
        """Write values whatever was there, and note which of `fields` got another value."""
        key = tuple(values.get(column, getattr(self.event, column, None)) for column in TABLES[table])
        known = self.oracle.rows[table].get(key)
        if known is None and must_exist:
            raise TooEarly
        if known is None:
            self.oracle.rows[table][key] = self._row(values, 1, {"*": 1})
            return
        after = known.values | values
        version = known.version + 1
        other = [name for name, columns in fields.items() if any(known.values[c] != after[c] for c in columns)]
        self.oracle.rows[table][key] = self._row(after, version, known.written | dict.fromkeys(other, version))

    def _merge(self, table: str, columns_of: Any, changed: Any, old: Any, new: Any) -> list[str]:
        """Write the changed fields that may be written, and return their names; none leaves the row as it is."""
        row = self._need(table)
        values: dict[str, Any] = {}
        kept = []
        for name in changed:
            wanted = columns_of(name, new)
            reason = self._conflict(row, name, wanted, None if old is None else columns_of(name, old))
            resolution = "reject" if reason == "deleted" else self.oracle.policy
            if reason:
                self._refuse(table, name, reason, resolution)
            if not reason or resolution == "last_write_wins":
                kept.append(name)
                values |= wanted
        if kept:
            version = row.version + 1
            written = row.written | dict.fromkeys(kept, version)
            self.oracle.rows[table][self._key(table)] = self._row(row.values | values, version, written)
        return kept

    def _conflict(self, row: Row, name: str, wanted: dict[str, Any], seen: dict[str, Any] | None) -> str | None:
        if row.values.get("deleted_at") or row.values.get("removed_at"):
            return "deleted"
        found = {column: row.values[column] for column in wanted}
        if found == wanted:
            return None
        if seen is not None and found != seen:
            return "old_value"
        expected = self.event.expected_version
        if expected is None or expected == row.version:
            return None
        written = row.written.get(name, row.written["*"])
        return "version" if expected > row.version or written > expected else None

    def _refuse(self, table: str, name: str, reason: str, resolution: str) -> None:
        self.oracle.conflicts.append(Refusal(self.event.event_id, table, name, reason, resolution))


class Named:
    """Values with these attributes and no others."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


SITE_FIELDS = (
    "name",
    "address",
    "territory_id",
    "contract_info",
    "parking_capacity",
    "operating_hours",
    "facility_type",
    "location_coordinates",
    "market_segment",
)
CONTRACT_FIELDS = ("contract_type", "billing_cycle", "billing_configuration", "start_date", "end_date")
CONTACT_FIELDS = ("name", "email", "phone", "role")
TERRITORY_FIELDS = ("name", "code", "region", "manager", "boundary")


def plain_column(name: str, values: Any) -> dict[str, Any]:
    return {name: None if values is None else getattr(values, name)}


def site_columns(name: str, values: Any) -> dict[str, Any]:
    value = None if values is None else getattr(values, name)
    if name == "name":
        return {"site_name": value}
    if name == "address":
        return {column: value and getattr(value, part) for part, column in ADDRESS.items()}
    if name == "contract_info":
        return {"contract_id": value and value.contract_id}
    if name == "location_coordinates":
        return {"latitude": value and value.latitude, "longitude": value and value.longitude}
    if name == "operating_hours":
        return {name: None if value is None else [dict(period) for period in value]}
    return {name: value}


def contract_columns(name: str, values: Any) -> dict[str, Any]:
    value = plain_column(name, values)[name]
    return {name: dict(value) if isinstance(value, dict) else value}


def contract_values(values: Any) -> dict[str, Any]:
    """A running contract's columns."""
    running: dict[str, Any] = {"terminated_on": None, "termination_reason": None}
    for name in CONTRACT_FIELDS:
        running |= contract_columns(name, values)
    return running


def territory_columns(name: str, values: Any) -> dict[str, Any]:
    value = plain_column(name, values)[name]
    return {name: orjson.loads(value) if name == "boundary" and value is not None else value}


async def compare(connection: Any, oracle: Oracle) -> list[str]:
    """Say where the read models, in the database, differ from the oracle; an empty list is what you want."""
    differences: list[str] = []
    for table, rows in oracle.tables().items():
        # Their views don't show field versions.
        expected = [{column: value for column, value in row.items() if column != "field_versions"} for row in rows]
        key = TABLES[table]
        # `table` is a literal of this file.
        fetched = await connection.fetch(f"SELECT * FROM public.{table}")  # noqa: S608
        found = [{column: _plain(column, value) for column, value in row.items()} for row in fetched]
        differences += differing(table, _by_key(expected, key), _by_key(found, key))
    return differences


def differing(table: str, expected: dict[Any, dict[str, Any]], found: dict[Any, dict[str, Any]]) -> list[str]:
    """A sentence for every row that is missing, too many, or has another value in a column."""
    names = {key: f"{table} {'/'.join(map(str, key))}" for key in expected.keys() | found.keys()}
    missing = [f"{names[key]}: expected a row, found none" for key in expected.keys() - found.keys()]
    extra = [f"{names[key]}: expected no row, found {found[key]}" for key in found.keys() - expected.keys()]
    other = [
        f"{names[key]}: {column}: expected {value!r}, found {found[key].get(column)!r}"
        for key in expected.keys() & found.keys()
        for column, value in expected[key].items()
        if found[key].get(column, ...) != value
    ]
    return sorted(missing + extra + other)


def _by_key(rows: list[dict[str, Any]], key: tuple[str, ...]) -> dict[Any, dict[str, Any]]:
    return {tuple(row[column] for column in key): row for row in rows}


def _plain(column: str, value: Any) -> Any:
    return orjson.loads(value) if column in JSON_COLUMNS and value is not None else value
