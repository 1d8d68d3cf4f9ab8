"""docs/scale.md: its results follow from its inputs, and each of those is used."""

import pytest

from tests.benchmarks import scale


@pytest.fixture
def page():
    return scale.PAGE.read_text()


class Used(dict):
    """Notes which inputs somebody asked for."""

    def __init__(self, inputs):
        super().__init__(inputs)
        self.asked = set()

    def __getitem__(self, name):
        self.asked.add(name)
        return super().__getitem__(name)


def test_the_results_are_those_of_the_inputs(page):
    assert scale.written(page) == page, "run `python -m tests.benchmarks.scale`"


def test_every_input_is_used(page):
    inputs = Used(scale.inputs_of(page))
    scale.results(inputs)
    assert inputs.asked == inputs.keys()


def test_the_calculation_is_the_one_that_the_page_describes():
    given = {
        "changes_per_site_per_year": 20.0,
        "performances_per_site_per_year": 20.0,
        "peak_factor": 10.0,
        "years_kept": 5.0,
        "load_max": 0.5,
        "fullest_partition": 1.0,
        "worker_events_per_second": 1_000.0,
        "replay_events_per_second": 50_000.0,
        "log_bytes_per_change": 300.0,
        "log_bytes_per_performance": 500.0,
        "read_model_bytes_per_site": 1_000.0,
        "read_model_bytes_per_performance": 100.0,
        "wal_bytes_per_change": 1_000.0,
        "wal_bytes_per_performance": 1_000.0,
        "postgres_cpu_seconds_per_million_change": 50.0,
        "postgres_cpu_seconds_per_million_performance": 50.0,
        "kafka_bytes_per_event": 50.0,
        "kafka_days": 7.0,
        "kafka_copies": 3.0,
        "postgres_cores": 16.0,
        "postgres_bytes_max": 8e12,
        "wal_bytes_per_second_max": 1e8,
    }
    needs = scale.Needs(100_000_000, given)
    assert needs.events == 20e9
    assert needs.mean == pytest.approx(126.75, abs=0.01)
    assert needs.workers == 3  # 1,267 events/s at the peak, 500 of each
    assert needs.partitions == 6
    assert needs.log_bytes == 20e9 * 400
    assert needs.read_model_bytes == 100e6 * (1_000 + 100 * 100)
    assert (needs.primaries, needs.first) == (2, " (bytes)")  # 8 + 1.1 TB
    assert needs.replay_seconds == 20e9 / 100_000


def test_keys_fall_evenly_into_partitions(page):
    assert scale.spread(64, 50_000) < 1.2
    assert scale.inputs_of(page)["fullest_partition"] >= 1
