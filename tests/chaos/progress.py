"""How long each partition stood still, and what a fault has to do with it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import asyncpg

Place = tuple[str, int]

LOOK_SECONDS = 0.1
ANSWER_SECONDS_MAX = 2.0

AFTERMATH_SECONDS = 3.0
"""A standstill that begins so soon after the end of a fault is still its doing: a rebalance, for instance."""

POSITIONS = """
SELECT p.topic, p.partition, o.next_offset
FROM sitelog.consumer_position AS o
JOIN sitelog.log_partition AS p USING (log_partition)
WHERE o.consumer = 'projector'
"""


@dataclass(frozen=True)
class Sample:
    """At `at` seconds: what Kafka had acknowledged, and what was applied as far as was known, as next offsets."""

    at: float
    ends: Mapping[Place, int]
    positions: Mapping[Place, int]


@dataclass(frozen=True)
class Standstill:
    """From `begin` to `end` a partition had events to apply, and applied none."""

    place: Place
    begin: float
    end: float


@dataclass(frozen=True)
class Strike:
    """A fault as it happened: `begin`, when it struck; `end`, when it was healed.

    `name` is its kind, for a worker with a name that survives a restart (an instance id) followed by `(static)`.
    """

    kind: str
    name: str
    begin: float
    end: float
    alone: bool


@dataclass(frozen=True)
class Recovery:
    """Seconds that the slowest partition stood still: since the fault struck, and since it was healed."""

    kind: str
    name: str
    alone: bool
    longest: float
    after_end: float


def standstills(samples: Sequence[Sample]) -> list[Standstill]:
    """Return every interval in which a partition was behind and didn't move."""
    found = []
    for place in sorted({place for sample in samples for place in sample.ends}):
        since: float | None = None
        position = 0
        for sample in samples:
            now = sample.positions.get(place, 0)
            if since is not None and now != position:
                found.append(Standstill(place, since, sample.at))
                since = None
            if now >= sample.ends.get(place, 0):
                since = None
            elif since is None:
                since = sample.at
            position = now
        if since is not None:
            found.append(Standstill(place, since, samples[-1].at))
    return found


def recoveries(strikes: Sequence[Strike], found: Sequence[Standstill]) -> list[Recovery]:
    """Return how long the slowest partition stood still because of each fault; of several at once, each is blamed.

    One that was to strike alone hasn't if another one struck before it was over, a slow recovery included.
    """
    return [_recovery(strike, [one for one in strikes if one is not strike], found) for strike in strikes]


def _recovery(strike: Strike, others: Sequence[Strike], found: Sequence[Standstill]) -> Recovery:
    over = strike.end + AFTERMATH_SECONDS
    during = [one for one in found if one.begin <= over and one.end >= strike.begin]
    after = [one for one in during if one.end >= strike.end]
    last = max((one.end for one in during), default=over)
    return Recovery(
        kind=strike.kind,
        name=strike.name,
        alone=strike.alone and not any(one.begin <= last and one.end >= strike.begin for one in others),
        longest=max((one.end - max(one.begin, strike.begin) for one in during), default=0.0),
        after_end=max((one.end - max(one.begin, strike.end) for one in after), default=0.0),
    )


class Observer:
    """Looks at the positions ten times a second, over a connection of its own; they stand while Postgres is away."""

    def __init__(self, connect: Callable[[], Any], ends: Callable[[], Mapping[Place, int]]) -> None:
        self.samples: list[Sample] = []
        self._connect = connect
        self._ends = ends
        self._connection: asyncpg.Connection | None = None

    async def observe(self) -> None:
        """Take samples until cancelled."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            if self._connection is not None:
                self._connection.terminate()

    async def look(self) -> None:
        """Take one sample."""
        sample = Sample(monotonic(), dict(self._ends()), self.samples[-1].positions if self.samples else {})
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                if self._connection is None or self._connection.is_closed():
                    self._connection = await self._connect()
                ends = dict(self._ends())
                rows = await self._connection.fetch(POSITIONS)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            if self._connection is not None:
                self._connection.terminate()
            self._connection = None
        else:
            positions = {(topic, partition): offset for topic, partition, offset in rows}
            sample = Sample(monotonic(), ends, positions)
        self.samples.append(sample)

    def is_level(self, ends: Mapping[Place, int]) -> bool:
        """Tell whether everything up to these ends and everything acknowledged now is applied, as of the last look.

        What nobody acknowledged may be in the topic, and a new leader may show less of it than was acknowledged.
        """
        return bool(self.samples) and all(_has(self.samples[-1].positions, all_of) for all_of in (ends, self._ends()))

    def is_under_way(self) -> bool:
        """Tell whether what was acknowledged at the first look that saw anything is applied."""
        first = next((sample.ends for sample in self.samples if sample.ends), None)
        return first is not None and _has(self.samples[-1].positions, first)


def _has(positions: Mapping[Place, int], ends: Mapping[Place, int]) -> bool:
    return all(positions.get(place, 0) >= end for place, end in ends.items())
