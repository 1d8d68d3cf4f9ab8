"""Records that can't be decoded like others: the reason stays with the record."""

from datetime import UTC, datetime
from typing import Any

import pytest

from sitelog.projections._items import decode
from sitelog.streams.codec import Codec
from sitelog.streams.examples import example
from tests.partition import Record

TOPIC = "customer-sites-events"
EVENT = example("site_created")
VALUE = Codec().encode(EVENT)


def records(*timestamps: int) -> Any:
    return [Record(offset, at, EVENT.entity_id.encode(), VALUE) for offset, at in enumerate(timestamps)]


@pytest.mark.parametrize("timestamp", [1_795_000_000_000_000, -(2**63), 2**63 - 1])
def test_a_time_that_is_none_stops_its_record_only(timestamp: int) -> None:
    before, wrong, after = decode(records(1_795_000_000_000, timestamp, 1_795_000_000_000), TOPIC, Codec())
    assert wrong.event is None
    assert wrong.problem is not None
    assert (wrong.problem.reason, wrong.append_time) == ("invalid_timestamp", datetime(1970, 1, 1, tzinfo=UTC))
    assert str(wrong.problem).endswith(f"as the record's timestamp, got {timestamp}")
    assert [item.event for item in (before, after)] == [EVENT, EVENT]
    assert before.append_time == after.append_time == datetime.fromtimestamp(1_795_000_000, UTC)


def test_without_a_time_a_record_is_one_of_1969() -> None:
    (item,) = decode(records(-1), TOPIC, Codec())
    assert item.problem is None
    assert item.append_time == datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
