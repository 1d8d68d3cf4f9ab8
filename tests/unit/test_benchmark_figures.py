"""The benchmark's own arithmetic: what it produces, which runs it counts, and what it makes of them."""

from xml.etree import ElementTree as ET

import pytest

from sitelog.streams.events import SiteCreated
from tests.benchmarks.chart import BARS_WIDTH, bars
from tests.benchmarks.contenders import LOOP_SAME, PLAIN_FAUST, SITELOG
from tests.benchmarks.events import Life, Site
from tests.benchmarks.figures import summarize
from tests.benchmarks.latency import Timeline
from tests.benchmarks.latest import Latest, Reader
from tests.benchmarks.race import NotCountedError, Run, check

EVENTS, SITES = 600, 20


class Database:
    """Answers as a database that holds these sites and so many logged events."""

    def __init__(self, sites: dict[str, Site], logged: int) -> None:
        self._sites = sites
        self._logged = logged

    async def fetch(self, _: str) -> list[tuple]:
        return [(site_id, *site) for site_id, site in self._sites.items()]

    async def fetchval(self, _: str) -> int:
        return self._logged


def lived() -> Life:
    life = Life(EVENTS, SITES)
    assert sum(1 for _ in life.history()) == EVENTS
    return life


def run(contender: str, rate: float) -> Run:
    return Run(contender, rate, 20.0, 100_000_000, 1.0, 10.0, 7.0)


def test_every_site_is_created_first_and_then_changes_from_what_it_was():
    sites: dict[str, dict] = {}
    for event in Life(EVENTS, SITES).history():
        if isinstance(event, SiteCreated):
            assert event.site_id not in sites
            sites[event.site_id] = event.site_data.model_dump()
            continue
        (field,) = event.changed_fields
        if event.old_values is not None:
            assert getattr(event.old_values, field) == sites[event.site_id][field]
        sites[event.site_id][field] = getattr(event.new_values, field)

    expected = {site_id: site._asdict() for site_id, site in lived().sites.items()}
    assert {s: {name: values[name] for name in Site._fields[:-1]} for s, values in sites.items()} == {
        s: {name: values[name] for name in Site._fields[:-1]} for s, values in expected.items()
    }


def test_what_the_loops_gather_is_what_was_produced():
    life = Life(EVENTS, SITES)
    reader, latest = Reader(), Latest()
    for message in life.messages():
        latest.take(*reader.read(message.value))

    columns = latest.arrays()
    gathered = dict(zip(columns[0], zip(*(columns[i] for i in (1, 10, 11, 12, 13)), strict=True), strict=True))
    assert gathered == {site_id: tuple(site) for site_id, site in life.sites.items()}


async def test_a_run_that_wrote_every_site_right_counts():
    life = lived()
    await check(Database(life.sites, EVENTS), SITELOG, life)


async def test_a_run_with_one_wrong_value_does_not_count():
    life = lived()
    site_id = next(iter(life.sites))
    wrong = {**life.sites, site_id: life.sites[site_id]._replace(parking_capacity=1)}
    with pytest.raises(NotCountedError, match=f"1 sites differ, such as {site_id}"):
        await check(Database(wrong, EVENTS), SITELOG, life)


async def test_a_run_that_lost_an_event_of_the_log_does_not_count():
    life = lived()
    with pytest.raises(NotCountedError, match=f"expected {EVENTS} events in the log, found {EVENTS - 1}"):
        await check(Database(life.sites, EVENTS - 1), SITELOG, life)


def test_figures_are_medians_with_the_worst_and_the_best_and_ratios_of_medians():
    runs = [run("faust", 1_000), run("sitelog", 5_000), run("sitelog", 9_000), run("sitelog", 6_000)]
    faust, sitelog = summarize(runs)

    assert (faust.contender, sitelog.contender) == (PLAIN_FAUST.name, SITELOG.name)
    assert (sitelog.events_per_second_min, sitelog.events_per_second, sitelog.events_per_second_max) == (
        5_000,
        6_000,
        9_000,
    )
    assert sitelog.times_faust == 6
    assert sitelog.times_loop is None, f"{LOOP_SAME.name} has no run"


def test_an_event_is_visible_with_the_first_position_beyond_it():
    timeline = Timeline({7: 3})
    timeline.reached[3] = [(10, 1.0), (20, 2.0)]

    assert timeline.visible_at(3, 9) == 1.0
    assert timeline.visible_at(3, 10) == 2.0
    assert timeline.visible_at(3, 20) is None


def test_the_chart_has_a_bar_for_each_as_long_as_its_figure() -> None:
    drawn = ET.fromstring(bars("events/s", [("faust", 1_000), ("sitelog", 4_000), ("a & b", 0)], "sitelog"))  # noqa: S314 - ours
    lengths = [float(bar.attrib["width"]) for bar in drawn.findall(".//{*}rect")]
    assert lengths == [BARS_WIDTH / 4, BARS_WIDTH, 0]
    colours = [bar.attrib["fill"] for bar in drawn.findall(".//{*}rect")]
    assert colours[0] == colours[2] != colours[1]
    words = [text.text for text in drawn.findall(".//{*}text")]
    assert words == ["events/s", "faust", "1,000", "sitelog", "4,000", "a & b", "0"]
