"""What every event and every record within one has in common."""

import time
from datetime import UTC, datetime
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from sitelog.streams._fields import LongCount, Text, Timestamp, Uuid
from sitelog.streams._uuid7 import uuid7


def _new_event_id() -> str:
    return str(uuid7(time.time_ns() // 1_000_000))


def _now() -> datetime:
    return datetime.now(UTC)


class Record(BaseModel):
    """Values that belong together. They never change; a misspelt field is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Event(Record):
    """A fact about one entity, in the past tense.

    Built by a producer, every field is checked and pydantic's ValidationError lists what is wrong; read
    from the log, it is built without these checks by `codec`. Two events with one `event_id` are the
    same event: the second one changes nothing.
    """

    event_type: ClassVar[str]
    """The event's name in configuration and log, such as site_created."""
    entity_type: ClassVar[str]
    """What the event is about: site or territory."""
    topic: ClassVar[str]
    """The Kafka topic that the event travels in."""
    key_field: ClassVar[str]
    """The field that holds the entity's id."""

    event_id: Uuid = Field(default_factory=_new_event_id)
    """A UUID in canonical form; without one, a new version 7."""
    event_timestamp: Timestamp = Field(default_factory=_now)
    """When it happened, in UTC whatever the offset it was given with; without one, now."""
    source_system: Text = "unknown"
    """Name of the system that says so."""
    actor: Text | None = None
    """Who caused it: a person or a service."""
    correlation_id: Text | None = None
    """What the event belongs to, such as a request; shared by all events of it."""
    causation_id: Text | None = None
    """Id of the event or command that caused this one."""
    expected_version: LongCount | None = None
    """Version of the row that an update changes, as the producer knew it; None asks for no check."""

    @property
    def entity_id(self) -> str:
        """Id of the site or territory that the event is about: the Kafka key."""
        entity_id: str = self.__dict__[self.key_field]
        return entity_id
