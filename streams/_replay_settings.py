"""The configuration's `replay`: how much of a replay is in memory, and how long it may hold workers up."""

from typing import Annotated

from pydantic import Field

from sitelog.streams._section import Section

_MIB = 1_048_576


class ReplaySettings(Section):
    """A replay's limits. Seconds, unless the name says otherwise."""

    # Processes that fold log partitions side by side: one per core is best. Small logs take one.
    processes: Annotated[int, Field(ge=1, le=64)] = 2
    # Events of one read from the log; more of them hardly helps.
    batch_records_max: Annotated[int, Field(ge=1, le=100_000)] = 5_000
    # Bytes of one read, whatever its events weigh.
    batch_bytes_max: Annotated[int, Field(ge=65_536, le=256 * _MIB)] = 16 * _MIB
    # Rows that a process remembers before it writes them and forgets them: about 1.5 kB each.
    rows_in_memory_max: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    # Events left to fold when the workers are held up for the switch: a fraction of a second's work.
    switch_events_max: Annotated[int, Field(ge=1, le=100_000)] = 5_000
    # How long the switch queues for one lock, and whoever comes later behind it; well below a worker's own patience.
    switch_lock_seconds: Annotated[float, Field(ge=0.1, le=60)] = 2
    # How long it tries again when somebody, such as a long query, keeps a table; then the replay gives up.
    switch_seconds_max: Annotated[float, Field(ge=1, le=3_600)] = 120
