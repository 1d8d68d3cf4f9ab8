"""What a read model is: a name, a row, and one pure function per event. The store does all I/O."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter, itemgetter
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

from sitelog.projections._columns import POSTGRES_TYPES, Json, columns
from sitelog.projections._json import same
from sitelog.streams._event import Event

Row = TypeVar("Row", bound=tuple[Any, ...])
E = TypeVar("E", bound=Event)
V = TypeVar("V")

Key = tuple[Any, ...]
KeyOf = Callable[[Any], Key | None]

NAME_CHARACTERS_MAX: Final = 63
"""Postgres cuts longer names, without an error."""

NEXT: Final = "_next"
"""What the names of tables end in that a replay builds, until they take the place of those in use."""

BOOKKEEPING: Final = {
    "version": "bigint NOT NULL",
    "field_versions": "json",
    "updated_at": "timestamptz NOT NULL",
    "log_partition": "smallint NOT NULL",
    "log_seq": "bigint NOT NULL",
}
"""Columns that the store keeps in every read model: events applied to the row, the version at which each
field changed last, when the last event was appended, and its place in the log."""

OWNER: Final = "log_partition"
"""The one of them that never changes: the rows of an entity are those of one partition."""


CHANGED: Final = "updated_at"
"""The column that every table has an index on: whoever copies a read model asks what has changed since."""


@dataclass(frozen=True, slots=True)
class Field:
    """How one field of an event's values becomes columns: `of` returns one value per column.

    Where that is an attribute as it is, `attribute` names it: reading it costs less than calling `of`.
    """

    columns: tuple[str, ...]
    of: Callable[[Any], tuple[Any, ...]]
    attribute: str | None = None


def field_of(column: str, attribute: str | None = None) -> Field:
    """Return the field that goes into one column as it is, from the attribute of the same name unless given."""
    attribute = attribute or column
    return Field((column,), _tuple_of(attrgetter, (attribute,)), attribute)


class Change(NamedTuple):
    """A partial update, as a merge sees it: which fields are meant, what the producer saw, what it wants."""

    fields: Sequence[str]
    old: Any | None
    new: Any | None


def change_of(event: Any) -> Change:
    """Read a change from an event with changed_fields, old_values and new_values."""
    return Change(event.changed_fields, event.old_values, event.new_values)


Kind = Literal["creates", "changes", "records", "merges", "follows"]


@dataclass(frozen=True, slots=True)
class Handler:
    """One event type's effect on one read model."""

    projection: "Projection[Any]"
    kind: Kind
    key: KeyOf
    fold: Callable[..., Any]
    fields: Mapping[str, Field] = field(default_factory=dict)
    change: Callable[[Any], Change] = change_of
    own_key: bool = False
    """Whether `key` is the id of the entity and nothing else."""
    changed: str | None = None
    """The field that an event must have changed: one that hasn't doesn't touch this read model."""

    owns: bool = field(init=False)
    """Whether this handler decides on conflicts: at most one per event type."""
    needs_row: bool = field(init=False)
    """Whether an event that finds no row must wait for its creation."""

    def __post_init__(self) -> None:
        """Work out once what is asked for every event."""
        object.__setattr__(self, "owns", self.kind in ("creates", "merges"))
        object.__setattr__(self, "needs_row", self.kind in ("changes", "merges"))


class Projection(Generic[Row]):
    """A read model with one row per key, in the table `<name>_v<version>` behind the view `<name>`.

    `key` names the key columns; the first one is the id of the entity, because events of different
    entities have no common order. `name` is identity and never changes; another meaning of the rows is a
    new `version`. `tombstone` names the column that is set when the entity is deleted: a row with it takes
    no further updates, as `merges` makes them, and a creation begins it anew.

    An event of a type that no handler names leaves the read model as it is.
    """

    per_entity: bool = False

    def __init__(
        self,
        *,
        name: str,
        version: int,
        key: str | tuple[str, ...],
        row: type[Row],
        tombstone: str | None = None,
        indexes: Sequence[tuple[str, ...]] = (),
    ) -> None:
        self.name = name
        self.version = version
        self.key = (key,) if isinstance(key, str) else key
        self.row = row
        self.columns = columns(row)
        self.index = {column: index for index, column in enumerate(self.columns)}
        self.json_columns = frozenset(name for name, (kind, _) in self.columns.items() if kind == POSTGRES_TYPES[Json])
        self.make: Callable[[Sequence[Any]], Row] = partial(tuple.__new__, row)  # half the price of _make
        self.key_of_row: Callable[[Sequence[Any]], Key] = _tuple_of(
            itemgetter, [self.index.get(c, 0) for c in self.key]
        )
        """Return the key columns of a row, or of its values."""
        self._key_of_event: KeyOf = _tuple_of(attrgetter, self.key)
        self._fields: dict[str, Field] = {}
        self.tombstone = tombstone
        self.tombstone_index = None if tombstone is None else self.index.get(tombstone)
        self.indexes = (*indexes, (CHANGED,))
        """Columns of each index besides the key's; the last one is the store's own."""
        self.handlers: dict[type[Event], Handler] = {}
        self._check()

    @property
    def table(self) -> str:
        """The table's name, without its schema."""
        return f"{self.name}_v{self.version}"

    def creates(
        self, *events: type[E], key: KeyOf | None = None
    ) -> Callable[[Callable[[E], Row | None]], Callable[[E], Row | None]]:
        """Register the function that makes the row. A row that is there already is a conflict."""
        return self._register("creates", events, key)

    def changes(
        self, *events: type[E], key: KeyOf | None = None
    ) -> Callable[[Callable[[Row, E], Row]], Callable[[Row, E], Row]]:
        """Register a function that changes the row. An event that comes before the row waits for it."""
        return self._register("changes", events, key)

    def records(
        self, *events: type[E], key: KeyOf | None = None, changed: str | None = None
    ) -> Callable[[Callable[[Row | None, E], Row | None]], Callable[[Row | None, E], Row | None]]:
        """Register a function that makes the row or replaces it; None leaves things as they are.

        With `changed` only for events that have changed this field.
        """
        return self._register("records", events, key, changed)

    def merges(
        self,
        event: type[E],
        fields: Mapping[str, Field],
        *,
        change: Callable[[E], Change] = change_of,
        key: KeyOf | None = None,
    ) -> None:
        """Let the changed fields of `event` be written into the row, with conflicts detected field by field."""
        self._fields.update(fields)
        own_key = self._own_key(event, key)
        handler = Handler(self, "merges", key or self._key_of_event, self._no_fold, fields, change, own_key)
        self._add(event, handler)

    def fields_between(self, before: Row, after: Row) -> list[str]:
        """Return the fields, of those that updates can change, in which two rows differ."""
        differ = self._columns_between(before, after)
        return [name for name, field in self._fields.items() if not differ.isdisjoint(field.columns)]

    def same(self, one: Sequence[Any], other: Sequence[Any]) -> bool:
        """Tell whether two rows say the same, however their JSON is spelled."""
        return one == other or not self._columns_between(one, other)

    def _columns_between(self, one: Sequence[Any], other: Sequence[Any]) -> set[str]:
        return {
            column
            for column, index in self.index.items()
            if not same(one[index], other[index], is_json=column in self.json_columns)
        }

    def _register(
        self, kind: Kind, events: Sequence[type[Event]], key: KeyOf | None, changed: str | None = None
    ) -> Callable[[Any], Any]:
        def register(fold: Any) -> Any:
            for event in events:
                own_key = self._own_key(event, key)
                self._add(event, Handler(self, kind, key or self._key_of_event, fold, own_key=own_key, changed=changed))
            return fold

        return register

    def _own_key(self, event: type[Event], key: KeyOf | None) -> bool:
        return key is None and self.key == (event.key_field,)

    def _add(self, event: type[Event], handler: Handler) -> None:
        if event in self.handlers:
            raise ValueError(f"{self.name}: {event.event_type} is handled twice")
        if handler.changed is not None and "changed_fields" not in event.model_fields:
            raise ValueError(f"{self.name}: changed={handler.changed!r}, but {event.event_type} has no changed_fields")
        self.handlers[event] = handler

    @staticmethod
    def _no_fold(*_: object) -> None:
        """Do nothing: a merge is done by the fold itself."""

    def _check(self) -> None:
        if not self.name.isidentifier() or self.name != self.name.lower():
            raise ValueError(f"read model {self.name!r}: expected a lower-case name that SQL takes unquoted")
        missing = [column for column in self.key if column not in self.columns]
        if missing:
            raise ValueError(f"{self.name}: key columns {missing} are not fields of {self.row.__name__}")
        reserved = sorted(self.columns.keys() & BOOKKEEPING.keys())
        if reserved:
            raise ValueError(f"{self.name}: {reserved} are kept by the store; name the fields differently")
        fresh = f"{self.table}{NEXT}"
        longest = max([f"{fresh}_pkey", *(f"{fresh}_{'_'.join(columns)}_idx" for columns in self.indexes)], key=len)
        if len(longest) > NAME_CHARACTERS_MAX:
            raise ValueError(f"{self.name}: {longest} is longer than the {NAME_CHARACTERS_MAX} characters of Postgres")
        if self.tombstone is not None and self.tombstone not in self.columns:
            raise ValueError(f"{self.name}: tombstone {self.tombstone!r} is not a field of {self.row.__name__}")


def _tuple_of(getter: Callable[..., Any], names: Sequence[Any]) -> Callable[[Any], Key]:
    """Return a function that reads a tuple, at C's speed: it is called for every event and row."""
    get = getter(*names)
    return get if len(names) > 1 else lambda source: (get(source),)


def _entity_key(event: Any) -> Key:
    return (event.entity_id,)


Rows = tuple[Row, ...]


class History(Projection[Row]):
    """A read model with any number of rows per entity, such as time ranges: the fold sees them all, in key order.

    Handlers are registered with `follows` and take and return all rows of the entity; what they leave out
    is removed, what they change is written.
    """

    per_entity = True

    def follows(
        self, *events: type[E], changed: str | None = None
    ) -> Callable[[Callable[[Rows[Row], E], Rows[Row]]], Callable[[Rows[Row], E], Rows[Row]]]:
        """Register a function from the entity's rows to its rows; `changed` as in `records`."""

        def register(fold: Any) -> Any:
            for event in events:
                self._add(event, Handler(self, "follows", _entity_key, fold, own_key=True, changed=changed))
            return fold

        return register

    def _add(self, event: type[Event], handler: Handler) -> None:
        if handler.kind != "follows":
            raise ValueError(f"{self.name}: a History takes its events with `follows`, not with `{handler.kind}`")
        super()._add(event, handler)
