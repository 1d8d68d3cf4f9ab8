"""The table of exit codes in docs/operations.md, held to the code."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ["streams", "projections", "agents", "deploy", "cli"]


def test_every_exit_code_is_explained_and_none_that_is_not_there():
    files = [file for package in PACKAGES for file in (ROOT / package).glob("*.py")]
    coded = {
        int(code) for file in files for code in re.findall(r"^EXIT_\w+: Final = (\d+)$", file.read_text(), re.MULTILINE)
    }
    section = (ROOT / "docs" / "operations.md").read_text().split("\n## Exit codes\n")[1].split("\n## ")[0]
    told = {int(code) for cell in re.findall(r"^\| ([\d, ]+) \|", section, re.MULTILINE) for code in cell.split(", ")}
    assert coded | {0} == told
