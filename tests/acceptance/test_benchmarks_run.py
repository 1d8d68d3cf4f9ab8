"""The benchmark itself: that everybody who takes part writes the right thing. How fast is no test's business."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
# Several transactions for everybody, so that there is a rate between the first and the last.
EVENTS = 12_000


@pytest.mark.services
def test_the_benchmark_counts_only_runs_that_wrote_every_site_right(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    contenders = ["loop-same", "sitelog"]
    chosen = [part for name in contenders for part in ("--only", name)]
    sizes = ["--events", str(EVENTS), "--sites", "500", "--rounds", "1"]

    answer = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", *sizes, *chosen, "--json", str(file)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )

    assert answer.returncode == 0, answer.stdout + answer.stderr
    found = json.loads(file.read_text(encoding="utf-8"))
    assert [run["contender"] for run in found["runs"]] == contenders
    assert all(run["events_per_second"] > 0 for run in found["runs"])
    assert found["machine"]["fsync"] == "on"
