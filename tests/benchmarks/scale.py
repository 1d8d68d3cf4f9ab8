"""The calculation of docs/scale.md: from the inputs that stand there to what so many sites need.

python -m tests.benchmarks.scale            # reads the inputs in the page, and puts the results into it
python -m tests.benchmarks.scale --spread   # simulates how evenly keys fall into partitions
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path
from typing import Annotated, Final

import typer
from aiokafka.partitioner import murmur2

PAGE: Final = Path(__file__).parents[2] / "docs" / "scale.md"
SITES: Final = (1_000_000, 100_000_000, 1_000_000_000)
SECONDS_A_YEAR: Final = 31_557_600
MARKERS: Final = ("<!-- results: written by `python -m tests.benchmarks.scale` -->\n", "<!-- end of results -->")
SPREAD_PARTITIONS: Final = (6, 16, 64)
SPREAD_SITES: Final = 200_000

Inputs = Mapping[str, float]


def inputs_of(page: str) -> dict[str, float]:
    """Return the page's inputs by name: the rows whose first cell is a name and whose second is a number."""
    rows = re.findall(r"^\| `(\w+)` \| ([\d.,]+) \|", page, re.MULTILINE)
    return {name: float(value.replace(",", "")) for name, value in rows}


class Needs:
    """What `sites` need, by these inputs."""

    def __init__(self, sites: int, given: Inputs) -> None:
        changes = given["changes_per_site_per_year"]
        performances = given["performances_per_site_per_year"]
        years, events_a_year = given["years_kept"], sites * (changes + performances)

        def each(name: str) -> float:
            """Return an input's mean over both kinds of event."""
            both = changes * given[f"{name}_change"] + performances * given[f"{name}_performance"]
            return both / (changes + performances)

        self.events = events_a_year * years
        self.mean = events_a_year / SECONDS_A_YEAR
        self.peak = self.mean * given["peak_factor"]
        busy = given["worker_events_per_second"] * given["load_max"]
        self.workers = max(2, ceil(self.peak * given["fullest_partition"] / busy))
        self.partitions = max(6, 2 * self.workers)
        self.log_bytes = self.events * each("log_bytes_per")
        history = performances * years * given["read_model_bytes_per_performance"]
        self.read_model_bytes = sites * (given["read_model_bytes_per_site"] + history)
        self.wal_per_second = self.peak * each("wal_bytes_per")
        self.wal_per_day = self.mean * 86_400 * each("wal_bytes_per")
        self.cores = self.peak * each("postgres_cpu_seconds_per_million") / 1e6
        self.primaries_for = {
            "bytes": ceil((self.log_bytes + self.read_model_bytes) / given["postgres_bytes_max"]),
            "processor": ceil(self.cores / (given["postgres_cores"] * given["load_max"])),
            "write-ahead log": ceil(self.wal_per_second / given["wal_bytes_per_second_max"]),
        }
        self.primaries = max(self.primaries_for.values())
        self.kafka_bytes = (
            self.mean * 86_400 * given["kafka_days"] * given["kafka_bytes_per_event"] * given["kafka_copies"]
        )
        self.catch_up_seconds = self.mean * 86_400 / (self.workers * given["worker_events_per_second"])
        self.replay_seconds = self.events / (given["replay_events_per_second"] * self.primaries)

    @property
    def first(self) -> str:
        """What asks for the most primaries, where it asks for more than one."""
        most = max(self.primaries_for, key=lambda name: self.primaries_for[name])
        return f" ({most})" if self.primaries > 1 else ""


ROWS: Final[tuple[tuple[str, Callable[[Needs], str]], ...]] = (
    ("events/s, mean", lambda n: f"{n.mean:,.1f}"),
    ("events/s, peak", lambda n: f"{n.peak:,.0f}"),
    ("workers", lambda n: f"{n.workers}"),
    ("partitions, at least", lambda n: f"{n.partitions}"),
    ("a day's outage is caught up in", lambda n: duration(n.catch_up_seconds)),
    ("Kafka, all copies", lambda n: size(n.kafka_bytes)),
    ("events kept", lambda n: f"{n.events / 1e9:,.2f} G"),
    ("log, with indexes", lambda n: size(n.log_bytes)),
    ("read models, with indexes", lambda n: size(n.read_model_bytes)),
    ("write-ahead log, peak", lambda n: f"{size(n.wal_per_second)}/s"),
    ("write-ahead log, a day", lambda n: size(n.wal_per_day)),
    ("Postgres's cores in use, peak", lambda n: f"{n.cores:.2f}"),
    ("primaries", lambda n: f"{n.primaries}{n.first}"),
    ("folding the whole log again", lambda n: duration(n.replay_seconds)),
)


def size(count: float) -> str:
    """Write bytes for people."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count / 1e3:,.1f} kB"


def duration(seconds: float) -> str:
    """Write seconds for people."""
    for unit, factor in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= factor:
            return f"{seconds / factor:,.1f} {unit}"
    return f"{seconds:,.0f} s"


def results(given: Inputs) -> str:
    """Return the table of results."""
    needs = [Needs(sites, given) for sites in SITES]
    head = ["", *(f"{sites // 1_000_000:,} M sites" for sites in SITES)]
    lines = [head, ["---", *["---:"] * len(SITES)], *([title, *map(write, needs)] for title, write in ROWS)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def written(page: str) -> str:
    """Return the page with the results of its inputs."""
    begin, end = MARKERS
    before, rest = page.split(begin)
    return f"{before}{begin}\n{results(inputs_of(page))}\n{end}{rest.split(end)[1]}"


def spread(partitions: int, sites: int = SPREAD_SITES) -> float:
    """Return how much more than the mean the fullest partition has, by Kafka's own hash of the keys."""
    found = Counter((murmur2(f"site-{number:09}".encode()) & 0x7FFFFFFF) % partitions for number in range(sites))
    return max(found.values()) * partitions / sites


def main(
    *, only_spread: Annotated[bool, typer.Option("--spread", help="Simulate the spread of keys.")] = False
) -> None:
    """Put the results into docs/scale.md."""
    if only_spread:
        for partitions in SPREAD_PARTITIONS:
            typer.echo(f"{partitions} partitions: the fullest has {spread(partitions):.3f} times the mean")
        return
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
