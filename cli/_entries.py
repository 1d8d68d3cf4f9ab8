"""One event of the log: as JSON for scripts, and as a line for people."""

from typing import Any, NamedTuple

import orjson
from rich.text import Text

from sitelog.cli._figures import moment
from sitelog.cli._terminal import text
from sitelog.cli._words import words
from sitelog.projections._look_log import Entry
from sitelog.streams._event import Event
from sitelog.streams.errors import Park


class Told(NamedTuple):
    """An entry with its event, or with why that can't be read."""

    entry: Entry
    event: Event | Park

    @property
    def words(self) -> str:
        """What happened, or why nobody can tell."""
        return f"can't be read: {self.event}" if isinstance(self.event, Park) else words(self.event)

    @property
    def origin(self) -> str:
        """Where it came from and where it is: topic[partition]@offset, and its number in the log."""
        entry = self.entry
        return f"{entry.topic}[{entry.partition}]@{entry.kafka_offset} #{entry.log_seq}"


def plain(told: Told) -> dict[str, Any]:
    """Return an event as JSON has it; `problem` says why where `event` is null."""
    entry, event = told
    read = None if isinstance(event, Park) else event.model_dump(mode="json")
    return {
        "topic": entry.topic,
        "partition": entry.partition,
        "log_seq": entry.log_seq,
        "offset": entry.kafka_offset,
        "event_id": entry.event_id,
        "event_type": entry.event_type,
        "entity_id": entry.entity_id,
        "event_time": entry.event_time,
        "append_time": entry.append_time,
        "ingest_time": entry.ingest_time,
        "headers": [] if entry.headers is None else orjson.loads(entry.headers),
        "event": read,
        "problem": str(event) if isinstance(event, Park) else None,
    }


def line(told: Told) -> Text:
    """Return an event as one line: when it happened, where it is, of what type, about whom, and what it says."""
    entry = told.entry
    return text(
        (moment(entry.event_time), "dim"),
        " ",
        told.origin,
        " ",
        (entry.event_type, "bold"),
        " ",
        (entry.entity_id, "cyan"),
        "  ",
        told.words,
    )
