"""Looks at Postgres and Kafka at once: each consumer's positions beside the topics' ends."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sitelog.projections._lag import Lag, lag, unapplied
from sitelog.projections._look_positions import positions
from sitelog.streams._offsets import Offsets, Place, Spot
from sitelog.streams.settings import Settings


async def look_at_lag(connection: Any, offsets: Offsets, settings: Settings, consumers: Sequence[str]) -> list[Lag]:
    """Return the lag of these consumers, and of all others that have positions, in every partition.

    Positions are read before ends: what is shown may be a moment's events too much, and never too little.
    """
    standings = {(one.consumer, Place(one.topic, one.partition)): one for one in await positions(connection)}
    topics = settings.kafka_config.topics.items()
    configured = [Place(name, number) for name, topic in topics for number in range(topic.partitions)]
    known = dict.fromkeys([*consumers, *(consumer for consumer, _ in standings)])
    everywhere = sorted({*standings, *((consumer, place) for consumer in known for place in configured)})
    bounds = await offsets.bounds({place for _, place in everywhere})
    wanted = {one: unapplied(standings.get(one), bounds.get(one[1])) for one in everywhere}
    times = await offsets.append_times(
        {Spot(*place, offset) for (_, place), offset in wanted.items() if offset is not None}
    )
    now = datetime.now(UTC)
    return [
        lag(
            one[0],
            one[1],
            standing=standings.get(one),
            bounds=bounds.get(one[1]),
            exists=one[1] in bounds,
            times=times,
            now=now,
        )
        for one in everywhere
    ]
