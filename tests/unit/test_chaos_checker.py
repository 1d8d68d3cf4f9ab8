"""The chaos suite's checker finds what it is there for: feed it a run that went well, then break one thing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from typing import Any

import pytest

from sitelog.streams.codec import Codec
from tests.chaos.checker import check, counts
from tests.chaos.evidence import EPOCH, Conflict, Evidence, Logged, Parked, Place, Record, decode
from tests.lives import Lives
from tests.oracle import TABLES, Oracle

PLACES: list[Place] = [("customer-sites-events", 0), ("territory-events", 0)]
EVENTS = 400


@dataclass
class Sent:
    entity_id: str
    number: int
    event_id: str
    value: bytes
    acknowledged: tuple[Place, int] | None


def a_run(*, repeat: int | None = None, late: int | None = None) -> tuple[list[Sent], Evidence]:
    """What a faultless run leaves; with the event at `repeat` sent twice, or that at `late` sent after its successor.

    The log is written by hand, not by the product: what the topic has, in its order, the first time it comes.
    """
    codec, numbers = Codec(), dict[str, int]()
    values = [codec.encode(event) for event in islice(Lives(1, sites=5, territories=2), EVENTS)]
    if repeat is not None:
        values.insert(repeat + 10, values[repeat])
    if late is not None:
        values[late], values[late + 1] = values[late + 1], values[late]
    sends, oracle = list[Sent](), Oracle()
    records: dict[Place, list[Record]] = {place: [] for place in PLACES}
    log = list[Logged]()
    for value in values:
        event = decode(value)
        place = PLACES[hasattr(event, "territory_id") and not hasattr(event, "site_id")]
        numbers[event.entity_id] = numbers.get(event.entity_id, 0) + 1
        offset = len(records[place])
        sends.append(Sent(event.entity_id, numbers[event.entity_id], event.event_id, value, (place, offset)))
        records[place].append(Record(place, offset, EPOCH, value))
        first = {send.event_id: send for send in reversed(sends)}
        before = len(oracle.applied)
        oracle.apply(event, append_time=EPOCH)
        for event_id in oracle.applied[before:]:
            send = first[event_id]
            assert send.acknowledged is not None
            first_event, offset = decode(send.value), send.acknowledged[1]
            event_type, event_time = first_event.event_type, first_event.event_timestamp
            log.append(Logged(place, 0, offset, event_id, event_type, send.entity_id, event_time, EPOCH, send.value))
    return sends, written(oracle, records, renumbered(log))


def written(oracle: Oracle, records: dict[Place, list[Record]], log: list[Logged]) -> Evidence:
    """Put beside a log what a database has beside it."""
    at = {row.event_id: row for row in log}
    conflicts = [
        Conflict(at[one.event_id].place, at[one.event_id].log_seq, at[one.event_id].entity_id, *one)
        for one in oracle.conflicts
    ]
    tables = {
        table: [row | last_of(at[oracle.rows[table][key_of(table, row)].event_id]) for row in rows]
        for table, rows in oracle.tables().items()
    }
    return holding(Evidence(records, [], {}, [], conflicts, tables), log)


def holding(evidence: Evidence, log: Sequence[Logged]) -> Evidence:
    """Put another log in the place of the one that is there, and positions that agree with it."""
    return replace(evidence, log=log, positions={row.place: row.log_seq for row in log})


def key_of(table: str, row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column] for column in TABLES[table])


def last_of(row: Logged) -> dict[str, Any]:
    return {"log_partition": row.place, "log_seq": row.log_seq}


def found(sends: list[Sent], evidence: Evidence) -> dict[str, int]:
    """Return the kinds of violation that the checker finds, without those that it doesn't."""
    return {kind: count for kind, count in counts(check(sends, evidence)).items() if count}


def renumbered(log: list[Logged]) -> list[Logged]:
    """Make the log dense again, as if the database had been told so from the beginning."""
    seqs = dict.fromkeys(PLACES, 0)
    for row in log:
        seqs[row.place] += 1
    counters = dict.fromkeys(PLACES, 0)
    again = []
    for row in log:
        counters[row.place] += 1
        again.append(replace(row, log_seq=counters[row.place]))
    return again


def test_a_run_that_went_well_is_right() -> None:
    assert found(*a_run()) == {}


def test_an_event_that_was_sent_twice_and_applied_once_is_right() -> None:
    assert found(*a_run(repeat=100)) == {}


def test_an_event_that_nobody_acknowledged_may_be_there_or_not() -> None:
    sends, evidence = a_run()
    last = sends[-1]
    last.acknowledged = None
    assert found(sends, evidence) == {}


def test_a_lost_event_is_found() -> None:
    sends, evidence = a_run()
    log = list(evidence.log)
    del log[100]
    assert found(sends, holding(evidence, renumbered(log))) == {"lost": 1}


def test_an_event_that_was_lost_at_the_end_is_found() -> None:
    sends, evidence = a_run()
    assert found(sends, holding(evidence, evidence.log[:-1])) == {"lost": 1}


def test_a_lost_event_that_leaves_a_hole_is_found_twice() -> None:
    sends, evidence = a_run()
    log = list(evidence.log)
    del log[100]
    assert found(sends, holding(evidence, log)) == {"lost": 1, "hole": 1}


def test_a_doubled_event_is_found() -> None:
    sends, evidence = a_run()
    log = [*evidence.log[:100], evidence.log[99], *evidence.log[100:]]
    assert found(sends, holding(evidence, renumbered(log))) == {"twice": 1}


def test_a_repeated_send_that_was_applied_again_is_found() -> None:
    sends, evidence = a_run(repeat=100)
    again = next(row for row in evidence.log if row.event_id == sends[100].event_id)
    assert found(sends, holding(evidence, renumbered([*evidence.log, again]))) == {"twice": 1}


def test_two_events_of_one_site_in_the_wrong_order_are_found() -> None:
    sends, evidence = a_run()
    log = list(evidence.log)
    one, other = next(
        (n, m)
        for n in range(100, EVENTS)
        for m in range(n + 1, EVENTS)
        if log[n].entity_id == log[m].entity_id and all(row.entity_id != log[n].entity_id for row in log[n + 1 : m])
    )
    log[one], log[other] = log[other], log[one]
    assert "order" in found(sends, holding(evidence, renumbered(log)))


def test_a_log_in_another_order_than_the_topic_is_found_between_sites_too() -> None:
    sends, evidence = a_run()
    log = list(evidence.log)
    at = next(
        n for n in range(100, EVENTS) if log[n].place == log[n + 1].place and log[n].entity_id != log[n + 1].entity_id
    )
    log[at], log[at + 1] = log[at + 1], log[at]
    assert found(sends, holding(evidence, renumbered(log))) == {"order": 1}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("site_name", "another"),
        ("version", 4_711),
        ("field_versions", {"name": 4_711}),
        ("updated_at", None),
        ("log_partition", PLACES[1]),
        ("log_seq", 4_711),
    ],
    ids=str,
)
def test_a_wrong_value_in_a_row_is_found(column: str, value: Any) -> None:
    sends, evidence = a_run()
    rows = [dict(row) for row in evidence.tables["customer_sites"]]
    rows[2][column] = value
    tables = {**evidence.tables, "customer_sites": rows}
    assert found(sends, replace(evidence, tables=tables)) == {"row": 1}


def test_a_row_too_few_and_one_too_many_are_found() -> None:
    sends, evidence = a_run()
    contracts = list(evidence.tables["contracts"])
    foreign = dict(contracts[0]) | {"contract_id": "nobody's"}
    tables = {**evidence.tables, "contracts": [*contracts[1:], foreign]}
    assert found(sends, replace(evidence, tables=tables)) == {"row": 2}


def test_an_acknowledged_event_that_the_brokers_lost_is_found() -> None:
    sends, evidence = a_run()
    place = PLACES[0]
    records = {**evidence.records, place: evidence.records[place][:-1]}
    assert found(sends, replace(evidence, records=records))["kafka"] == 1


def test_sends_of_one_site_that_the_brokers_put_into_another_order_are_found() -> None:
    sends, evidence = a_run()
    site = [send for send in sends if send.entity_id == sends[0].entity_id]
    at = [sends.index(site[3]), sends.index(site[4])]
    sends[at[0]], sends[at[1]] = sends[at[1]], sends[at[0]]
    assert found(sends, evidence) == {"kafka": 1}


def test_an_event_that_nobody_sent_is_found_in_topic_and_log() -> None:
    sends, evidence = a_run()
    assert found(sends[:-1], evidence) == {"unknown": 2}


def test_a_payload_that_the_log_has_changed_is_found() -> None:
    sends, evidence = a_run()
    log = list(evidence.log)
    log[100] = replace(log[100], value=log[101].value)
    assert found(sends, holding(evidence, log)) == {"changed": 1}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("event_id", "another"),
        ("event_type", "site_moved"),
        ("entity_id", "another"),
        ("event_time", EPOCH),
        ("append_time", EPOCH + timedelta(seconds=1)),
    ],
    ids=str,
)
def test_what_the_log_says_wrongly_of_an_event_is_found(column: str, value: Any) -> None:
    sends, evidence = a_run()
    log = list(evidence.log)
    log[100] = replace(log[100], **{column: value})
    assert found(sends, holding(evidence, log))["changed"] == 1


def test_an_event_that_the_log_has_from_its_second_record_is_found() -> None:
    sends, evidence = a_run(repeat=100)
    at = next(n for n, row in enumerate(evidence.log) if row.event_id == sends[100].event_id)
    again = next(send for send in sends[101:] if send.event_id == sends[100].event_id)
    assert again.acknowledged is not None
    log = list(evidence.log)
    log[at] = replace(log[at], offset=again.acknowledged[1])
    assert found(sends, holding(evidence, log)) == {"changed": 1}


@pytest.mark.parametrize("positions", [{}, {PLACES[0]: 1}, {PLACES[0]: 4_711}], ids=str)
def test_a_position_that_isn_t_that_of_the_log_s_last_event_is_found(positions: dict[Place, int]) -> None:
    sends, evidence = a_run()
    positions = {PLACES[1]: evidence.positions[PLACES[1]]} | positions
    assert found(sends, replace(evidence, positions=positions)) == {"position": 1}


def test_a_conflict_too_few_and_one_too_many_are_found() -> None:
    sends, evidence = a_run()
    conflicts = list(evidence.conflicts)
    assert found(sends, replace(evidence, conflicts=conflicts[1:])) == {"conflict": 1}
    foreign = replace(conflicts[0], event_id=sends[0].event_id)
    assert found(sends, replace(evidence, conflicts=[*conflicts, foreign])) == {"conflict": 1}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("place", PLACES[1]),
        ("log_seq", 4_711),
        ("entity_id", "another"),
        ("event_id", "another"),
        ("table", "territories"),
        ("field", "another"),
        ("reason", "exists"),
        ("resolution", "reject"),
    ],
    ids=str,
)
def test_what_a_conflict_says_wrongly_is_found(column: str, value: Any) -> None:
    sends, evidence = a_run()
    at = next(n for n, one in enumerate(evidence.conflicts) if one.place == PLACES[0])
    conflicts = list(evidence.conflicts)
    conflicts[at] = replace(conflicts[at], **{column: value})
    assert found(sends, replace(evidence, conflicts=conflicts)) == {"conflict": 2}


def test_an_event_that_was_put_aside_without_need_is_found() -> None:
    sends, evidence = a_run()
    last = evidence.log[-1]
    parked = [Parked(last.place, last.offset, last.entity_id, "parked", "refused_by_database")]
    assert found(sends, replace(holding(evidence, evidence.log[:-1]), parked=parked)) == {"lost": 1, "parked": 1}


def test_an_event_that_was_sent_after_its_successor_is_right_in_the_order_of_the_topic_only() -> None:
    sends, evidence = a_run(late=first_pair())
    assert found(sends, evidence) == {}


def test_a_change_that_came_before_its_creation_is_applied_after_it() -> None:
    sends, evidence = a_run(late=first_pair(creation=True))
    log = list(evidence.log)
    at = next(n for n, row in enumerate(log) if row.offset > log[n + 1].offset and row.place == log[n + 1].place)

    assert found(sends, evidence) == {}
    log[at], log[at + 1] = log[at + 1], log[at]
    assert found(sends, holding(evidence, renumbered(log))) == {"order": 1}


def first_pair(*, creation: bool = False) -> int:
    """Return where two events of one entity follow each other, the first of them its creation or not."""
    events = list(islice(Lives(1, sites=5, territories=2), EVENTS))
    seen = set[str]()
    for at in range(EVENTS - 1):
        is_first = events[at].entity_id not in seen
        seen.add(events[at].entity_id)
        if events[at].entity_id == events[at + 1].entity_id and is_first is creation:
            return at
    raise AssertionError
