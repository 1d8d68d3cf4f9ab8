"""How far each consumer is behind the end of its topics: in events, and in seconds."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sitelog.projections._look_positions import Standing
from sitelog.streams._offsets import Bounds, Place, Spot


@dataclass(frozen=True, slots=True)
class Lag:
    """One consumer in one partition.

    `position` is None where nobody has claimed the partition yet, `end`, `events` and `seconds` where Kafka has no
    such partition, or no leader of it. `seconds` is the age of the oldest event that isn't applied, 0 where there is
    none. `problem` says what keeps a worker from going on there.
    """

    consumer: str
    topic: str
    partition: int
    position: int | None
    end: int | None
    events: int | None
    seconds: float | None
    owner: str | None
    parked_entities: int
    problem: str | None


@dataclass(frozen=True, slots=True)
class Total:
    """All partitions of one consumer: the events add up, the seconds are those of the partition furthest behind."""

    consumer: str
    events: int
    seconds: float
    parked_entities: int
    problems: int

    def exceeds(self, events_max: int | None, seconds_max: float | None) -> bool:
        """Tell whether a limit is exceeded; what isn't known because of a problem exceeds any, and having none."""
        too_many = events_max is not None and self.events > events_max
        too_late = seconds_max is not None and self.seconds > seconds_max
        return too_many or too_late or self.problems > 0


def unapplied(standing: Standing | None, bounds: Bounds | None) -> int | None:
    """Return the offset of the oldest event that the topic has and the consumer hasn't applied, None for none."""
    if bounds is None:
        return None
    offset = bounds.first if standing is None else max(standing.next_offset, bounds.first)
    return offset if offset < bounds.end else None


def lag(
    consumer: str,
    place: Place,
    *,
    standing: Standing | None,
    bounds: Bounds | None,
    exists: bool,
    times: Mapping[Spot, datetime],
    now: datetime,
) -> Lag:
    """Compare a position with the topic, whose partition that `exists` without `bounds` has no leader.

    `times` says when records were appended, as far as that is known. Where it isn't, the time since the last event
    was applied stands in for the age of the next one.
    """
    position = None if standing is None else standing.next_offset
    oldest = unapplied(standing, bounds)
    events = None if bounds is None else max(0, bounds.end - (bounds.first if position is None else position))
    return Lag(
        consumer=consumer,
        topic=place.topic,
        partition=place.partition,
        position=position,
        end=None if bounds is None else bounds.end,
        events=events,
        seconds=None if bounds is None else _seconds(place, oldest, standing, times, now),
        owner=None if standing is None else standing.owner,
        parked_entities=0 if standing is None else standing.parked_entities,
        problem=_problem(position, bounds, exists=exists),
    )


def totals(lags: Collection[Lag]) -> list[Total]:
    """Sum up by consumer, in their order."""
    return [_total(consumer, [one for one in lags if one.consumer == consumer]) for consumer in consumers(lags)]


def consumers(lags: Collection[Lag]) -> list[str]:
    """Return the consumers' names, each once, in their order."""
    return list(dict.fromkeys(one.consumer for one in lags))


def _total(consumer: str, lags: Collection[Lag]) -> Total:
    return Total(
        consumer,
        events=sum(one.events or 0 for one in lags),
        seconds=max((one.seconds or 0.0 for one in lags), default=0.0),
        parked_entities=sum(one.parked_entities for one in lags),
        problems=sum(one.problem is not None for one in lags),
    )


def _seconds(
    place: Place, oldest: int | None, standing: Standing | None, times: Mapping[Spot, datetime], now: datetime
) -> float:
    if oldest is None:
        return 0.0
    since = times.get(Spot(*place, oldest))
    if since is None and standing is not None:
        since = standing.last_event_time or standing.updated_at
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())


def _problem(position: int | None, bounds: Bounds | None, *, exists: bool) -> str | None:
    if bounds is None:
        return "no leader: are its brokers running?" if exists else "Kafka has no such partition"
    if position is None:
        return f"never claimed, and the topic begins at {bounds.first}" if bounds.first > 0 else None
    if position < bounds.first:
        return f"{bounds.first - position} events were deleted before they were applied"
    if position > bounds.end:
        return f"the position is {position - bounds.end} beyond the end"
    return None
