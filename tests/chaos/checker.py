"""Holds what a run has left behind against what its producers sent: every promise, event by event.

It shares no code with the product. What happened is told by the producers' own notes and by Kafka; what follows from
that, by the oracle. A violation's kind is one of

    kafka     acknowledged, and not in its place in the topic, or not in the order in which it was sent
    unknown   in the topic or in the log, and nobody has sent it
    lost      in the topic, and not in the log
    twice     in the log more than once
    hole      log seqs of a partition aren't 1, 2, 3 …
    order     another order than that of the topic
    changed   the log's copy differs from what was sent
    parked    put aside, though it can be applied; or not put aside, though it can't
    row       a read model's row differs from an independent fold
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tests.chaos.evidence import Evidence, Fields, Logged, Place, Record, decode
from tests.oracle import TABLES, Oracle, differing

KINDS = ("kafka", "unknown", "lost", "twice", "hole", "order", "changed", "parked", "row")


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
        *_unchanged(names, evidence),
        *_put_aside(story.oracle, evidence),
        *_rows(story.oracle, evidence),
    ]


def counts(violations: Iterable[Violation]) -> dict[str, int]:
    """Return how many of each kind there are, also of those that there are none of."""
    found = Counter(violation.kind for violation in violations)
    return {kind: found[kind] for kind in KINDS}


class _Story:
    """What must have been applied: `applied` are event ids by partition, in their order."""

    def __init__(self, evidence: Evidence) -> None:
        self.oracle = Oracle()
        self.applied: dict[Place, list[str]] = {}
        for place, records in evidence.records.items():
            before = len(self.oracle.applied)
            for record in records:
                self.oracle.apply(decode(record.value), append_time=record.append_time)
            self.applied[place] = self.oracle.applied[before:]


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


def _unchanged(names: dict[str, str], evidence: Evidence) -> Iterator[Violation]:
    there = {(record.place, record.offset): record for record in _records(evidence)}
    for row in evidence.log:
        record = there.get((row.place, row.offset))
        name = names.get(row.event_id, row.event_id)
        if record is None or (row.value, row.append_time) != (record.value, record.append_time):
            yield Violation("changed", f"{name}: the log's copy isn't what is at {_at(row)}")
        elif (row.event_id, row.entity_id) != _ids(decode(record.value)):
            yield Violation("changed", f"{name}: the log calls it {row.event_id} of {row.entity_id}")


def _put_aside(oracle: Oracle, evidence: Evidence) -> Iterator[Violation]:
    expected = Counter({entity_id: len(waiting) for entity_id, waiting in oracle.waiting.items()})
    found = Counter(parked.entity_id for parked in evidence.parked)
    for entity_id in sorted(expected.keys() | found.keys()):
        if expected[entity_id] != found[entity_id]:
            reasons = sorted({parked.reason for parked in evidence.parked if parked.entity_id == entity_id})
            yield Violation(
                "parked", f"{entity_id}: expected {expected[entity_id]} put aside, found {found[entity_id]} {reasons}"
            )


def _rows(oracle: Oracle, evidence: Evidence) -> Iterator[Violation]:
    for table, expected in oracle.tables().items():
        key = TABLES[table]
        ours, theirs = (
            {tuple(row[column] for column in key): dict(row) for row in rows}
            for rows in (expected, evidence.tables[table])
        )
        for difference in differing(table, ours, theirs):
            yield Violation("row", difference)


def _records(evidence: Evidence) -> Iterator[Record]:
    for records in evidence.records.values():
        yield from records


def _by_place(log: Sequence[Logged]) -> dict[Place, list[Logged]]:
    found: defaultdict[Place, list[Logged]] = defaultdict(list)
    for row in log:
        found[row.place].append(row)
    return found


def _ids(event: Fields) -> tuple[str, str]:
    return event.event_id, event.entity_id


def _at(where: Record | Logged) -> str:
    return f"{where.place[0]}[{where.place[1]}] {where.offset}"
