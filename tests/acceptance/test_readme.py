"""What the README tells a new user to type works, in its order, on a machine that has only what it names."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import watched_folder

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout's folder as `make setup` leaves it; the stack in it ends with the test, however that ends."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / ".venv").symlink_to(BIN.parent)
    with watched_folder() as stack:
        (folder / ".sitelog").symlink_to(stack)
        yield folder
        shell("sitelog down", folder)


def shell(command: str, folder: Path, timeout: float = 170) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SITELOG_")}
    environ["PATH"] = f"{BIN}:{environ['PATH']}"
    return subprocess.run(
        ["bash", "-eu", "-c", command],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.services
@pytest.mark.timeout(400)
def test_the_demo_and_then_every_command_and_program_of_the_readme_work(home: Path) -> None:
    demo = shell("sitelog demo --changes 1000", home)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "WRONG" not in demo.stdout
    (produce,) = [block for block in blocks("python") if "Appender" in block]
    (home / "produce.py").write_text(produce)
    produced = shell("python produce.py", home)
    assert produced.returncode == 0, produced.stderr
    for block in blocks("console"):
        commands = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
        for command in commands:
            done = shell(command, home)
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    site = shell("sitelog site CHI-1", home)
    assert "Union Station garage" in site.stdout


def test_the_read_model_in_the_readme_is_the_file_that_it_names() -> None:
    example = (ROOT / "docs/examples/open_sites.py").read_text()
    assert example in blocks("python")


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    (prerequisites,) = blocks("sh")
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", prerequisites, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_link_of_the_readme_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target
