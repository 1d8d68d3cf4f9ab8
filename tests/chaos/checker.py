"""Holds what a run has left behind against what its producers sent: every promise, event by event.

It shares no code with the product. What happened is told by the producers' own notes and by Kafka; what follows from
that, by the oracle. A violation's kind is one of

    kafka     acknowledged, and not in its place in the topic, or not in the order in which it was sent
    unknown   in the topic or in the log, and nobody has sent it
    lost      in the topic, and not in the log
    twice     in the log more than once
    hole      log seqs of a partition aren't 1, 2, 3 …
    order     another order than that of the topic
    changed   the log's copy differs from what was sent first
    position  the projector's position names another event than the last of its log
    parked    put aside, though it can be applied; or not put aside, though it can't
    conflict  recorded, and there was none; or not recorded, and there was one; or of another event
    row       a read model's row differs from an independent fold
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tests.chaos.evidence import Conflict, Evidence, Logged, Place, Record, decode
from tests.oracle import TABLES, Oracle, differing

KINDS = ("kafka", "unknown", "lost", "twice", "hole", "order", "changed", "position", "parked", "conflict", "row")


class Sent(Protocol):
    """A record as its producer remembers it."""

    entity_id: str
    number: int
    event_id: str
    value: bytes

    @property
    def acknowledged(self) -> tuple[Place, int] | None:
        """Where it is, if Kafka said so."""


@dataclass(frozen=True)
class Violation:
    kind: str
    what: str


def check(sends: Sequence[Sent], evidence: Evidence) -> list[Violation]:
    """Return every broken promise; none is what you want."""
    names = {send.event_id: f"{send.entity_id} event {send.number}" for send in sends}
    story = _Story(evidence)
    return [
        *_kafka_kept(sends, evidence),
        *_nothing_is_foreign(sends, evidence),
        *_each_is_there_once(names, story.applied, evidence.log),
        *_dense(evidence.log),
        *_in_order(names, story.applied, evidence.log),
        *_unchanged(names, story, evidence),
        *_positions(evidence),
        *_put_aside(story.oracle, evidence),
        *_conflicts(names, story, evidence),
        *_rows(story, evidence),
    ]


def counts(violations: Iterable[Violation]) -> dict[str, int]:
    """Return how many of each kind there are, also of those that there are none of."""
    found = Counter(violation.kind for violation in violations)
    return {kind: found[kind] for kind in KINDS}


class _Story:
    """What must have been applied: `applied` are event ids by partition, in their order.

    `at` is where the log must have each of them; `offsets` and `entities` are those of every event's first record.
    """

    def __init__(self, evidence: Evidence) -> None:
        self.oracle = Oracle()
        self.applied: dict[Place, list[str]] = {}
        self.at: dict[str, tuple[Place, int]] = {}
        self.offsets: dict[str, int] = {}
        self.entities: dict[str, str] = {}
        for place, records in evidence.records.items():
            before = len(self.oracle.applied)
            for record in records:
                event = decode(record.value)
                self.offsets.setdefault(event.event_id, record.offset)
                self.entities.setdefault(event.event_id, event.entity_id)
                self.oracle.apply(event, append_time=record.append_time)
            self.applied[place] = self.oracle.applied[before:]
            self.at |= {event_id: (place, seq) for seq, event_id in enumerate(self.applied[place], start=1)}

    def tables(self) -> dict[str, dict[Any, dict[str, Any]]]:
        """Return every table's rows by key, each with the place in the log of the last event that changed it."""
        return {
            table: {key: row | self._last(table, key) for key, row in _by_key(table, rows).items()}
            for table, rows in self.oracle.tables().items()
        }

    def conflicts(self) -> set[Conflict]:
        """Return what every event must have met that its producer didn't know of."""
        return {Conflict(*self.at[one.event_id], self.entities[one.event_id], *one) for one in self.oracle.conflicts}

    def _last(self, table: str, key: Any) -> dict[str, Any]:
        place, log_seq = self.at[self.oracle.rows[table][key].event_id]
        return {"log_partition": place, "log_seq": log_seq}


def _kafka_kept(sends: Sequence[Sent], evidence: Evidence) -> Iterator[Violation]:
    there = {(record.place, record.offset): record.value for record in _records(evidence)}
    latest: dict[str, int] = {}
    for send in sends:
        if send.acknowledged is None:
            continue
        place, offset = send.acknowledged
        name = f"{send.entity_id} event {send.number}, acknowledged at {place[0]}[{place[1]}] {offset}"
        if there.get((place, offset)) != send.value:
            yield Violation("kafka", f"{name}: not there")
        if offset <= latest.get(send.entity_id, -1):
            yield Violation("kafka", f"{name}: one that was sent before it is at {latest[send.entity_id]}")
        latest[send.entity_id] = offset


def _nothing_is_foreign(sends: Sequence[Sent], evidence: Evidence) -> Iterator[Violation]:
    values = {send.value for send in sends}
    ids = {send.event_id for send in sends}
    for record in _records(evidence):
        if record.value not in values:
            yield Violation("unknown", f"nobody has sent the record at {_at(record)}")
    for row in evidence.log:
        if row.event_id not in ids:
            yield Violation("unknown", f"nobody has sent event {row.event_id} at {_at(row)}, log seq {row.log_seq}")


def _each_is_there_once(
    names: dict[str, str], applied: dict[Place, list[str]], log: Sequence[Logged]
) -> Iterator[Violation]:
    found = Counter(row.event_id for row in log)
    for place, event_ids in applied.items():
        for event_id in event_ids:
            if not found[event_id]:
                yield Violation("lost", f"{names.get(event_id, event_id)} of {place[0]}[{place[1]}]: not in the log")
    for event_id, times in found.items():
        if times > 1:
            yield Violation("twice", f"{names.get(event_id, event_id)}: {times} times in the log")


def _dense(log: Sequence[Logged]) -> Iterator[Violation]:
    for place, rows in _by_place(log).items():
        for expected, row in enumerate(rows, start=1):
            if row.log_seq != expected:
                yield Violation("hole", f"{place[0]}[{place[1]}]: expected log seq {expected}, found {row.log_seq}")
                break


def _in_order(names: dict[str, str], applied: dict[Place, list[str]], log: Sequence[Logged]) -> Iterator[Violation]:
    """Compare the events that both have, so that one that is lost or there twice makes no disorder of the others."""
    for place, rows in _by_place(log).items():
        expected = applied.get(place, [])
        found = list(dict.fromkeys(row.event_id for row in rows))
        both = set(expected) & set(found)
        pairs = zip([one for one in expected if one in both], [one for one in found if one in both], strict=True)
        for one, other in pairs:
            if one != other:
                wanted, got = names.get(one, one), names.get(other, other)
                yield Violation("order", f"{place[0]}[{place[1]}]: expected {wanted}, found {got}")
                break


def _unchanged(names: dict[str, str], story: _Story, evidence: Evidence) -> Iterator[Violation]:
    there = {(record.place, record.offset): record for record in _records(evidence)}
    for row in evidence.log:
        record = there.get((row.place, row.offset))
        name = names.get(row.event_id, row.event_id)
        if record is None or (row.value, row.append_time) != (record.value, record.append_time):
            yield Violation("changed", f"{name}: the log's copy isn't what is at {_at(row)}")
            continue
        event = decode(record.value)
        expected = (event.event_id, event.event_type, event.entity_id, event.event_timestamp)
        found = (row.event_id, row.event_type, row.entity_id, row.event_time)
        if found != expected:
            yield Violation("changed", f"{name}: expected {_words(expected)}, the log calls it {_words(found)}")
        elif row.offset != story.offsets[row.event_id]:
            yield Violation(
                "changed", f"{name}: it came first at {story.offsets[row.event_id]}, the log has {_at(row)}"
            )


def _positions(evidence: Evidence) -> Iterator[Violation]:
    last = {place: rows[-1].log_seq for place, rows in _by_place(evidence.log).items()}
    for place in sorted(last.keys() | evidence.positions.keys()):
        expected, found = last.get(place, 0), evidence.positions.get(place, 0)
        if found != expected:
            yield Violation(
                "position", f"{place[0]}[{place[1]}]: the log ends at log seq {expected}, the position says {found}"
            )


def _put_aside(oracle: Oracle, evidence: Evidence) -> Iterator[Violation]:
    expected = Counter({entity_id: len(waiting) for entity_id, waiting in oracle.waiting.items()})
    found = Counter(parked.entity_id for parked in evidence.parked)
    for entity_id in sorted(expected.keys() | found.keys()):
        if expected[entity_id] != found[entity_id]:
            reasons = sorted({parked.reason for parked in evidence.parked if parked.entity_id == entity_id})
            yield Violation(
                "parked", f"{entity_id}: expected {expected[entity_id]} put aside, found {found[entity_id]} {reasons}"
            )


def _conflicts(names: dict[str, str], story: _Story, evidence: Evidence) -> Iterator[Violation]:
    expected, found = story.conflicts(), set(evidence.conflicts)
    for what, conflicts in (("not recorded", expected - found), ("there was no such", found - expected)):
        for one in sorted(conflicts):
            name = names.get(one.event_id, one.event_id)
            yield Violation("conflict", f"{name}: {what}: {one}")


def _rows(story: _Story, evidence: Evidence) -> Iterator[Violation]:
    for table, expected in story.tables().items():
        for difference in differing(table, expected, _by_key(table, evidence.tables[table])):
            yield Violation("row", difference)


def _by_key(table: str, rows: Iterable[Mapping[str, Any]]) -> dict[Any, dict[str, Any]]:
    return {tuple(row[column] for column in TABLES[table]): dict(row) for row in rows}


def _records(evidence: Evidence) -> Iterator[Record]:
    for records in evidence.records.values():
        yield from records


def _by_place(log: Sequence[Logged]) -> dict[Place, list[Logged]]:
    found: defaultdict[Place, list[Logged]] = defaultdict(list)
    for row in log:
        found[row.place].append(row)
    return found


def _words(parts: Iterable[object]) -> str:
    return " ".join(map(str, parts))


def _at(where: Record | Logged) -> str:
    return f"{where.place[0]}[{where.place[1]}] {where.offset}"
