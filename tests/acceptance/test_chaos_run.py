"""The chaos suite's short form: almost every kind of fault in half a minute, and nothing lost, doubled or wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sitelog.projections._table import BULK_ROWS
from tests.chaos.kinds import KINDS

REPOSITORY = Path(__file__).parents[2]
SEED, SECONDS = 1291, 35
"""A schedule in which few kinds are missing, and none of the workers is spared."""

KINDS_MIN = 15


@pytest.mark.services
@pytest.mark.timeout(400)
def test_half_a_minute_of_faults_leaves_each_event_once_and_every_row_right(tmp_path: Path) -> None:
    file = tmp_path / "chaos.json"
    chosen = ["--seed", str(SEED), "--seconds", str(SECONDS), "--json", str(file)]

    answer = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *chosen],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=390,
        check=False,
    )

    print(answer.stdout)  # noqa: T201 - whoever reads why the test has failed needs the schedule
    assert answer.returncode == 0, answer.stderr
    (run,) = json.loads(file.read_text(encoding="utf-8"))["runs"]
    assert run["verdict"] == "right"
    assert run["acknowledged"] > SECONDS * 100
    assert run["marks"]["sites in the largest transaction"] >= BULK_ROWS
    assert run["marks"]["transactions that change sites in place"] > 0
    assert len(run["kinds"]) >= min(KINDS_MIN, len(KINDS) - len(run["left_out"]))
