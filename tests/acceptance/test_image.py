"""The image's own steps, run on the image's own files: what it would hold, without an engine."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 600


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder that stands for /, after the Dockerfile's build stage."""
    root = tmp_path_factory.mktemp("image")
    sources = root / "src"
    sources.mkdir()
    compiler = str(quick_compiler(root))
    build = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text()).split("\nFROM ")[1]
    for line in build.splitlines():
        name, _, rest = line.partition(" ")
        if name == "COPY":
            *copied, target = shlex.split(rest)
            for one in copied:
                copy(ROOT / one, sources / target if len(copied) == 1 else sources / target / Path(one).name)
        elif name == "RUN":
            script, target = shlex.split(rest)
            # Compiling thousands of files to bytecode is half the time, and nothing that is tested here.
            environ = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PIP_NO_COMPILE": "1", "CC": compiler}
            step = subprocess.run(
                [script, root / target.lstrip("/")],
                cwd=sources, env=environ, capture_output=True, text=True, timeout=SECONDS_MAX, check=False,
            )  # fmt: skip
            assert step.returncode == 0, step.stdout + step.stderr
    return root


def quick_compiler(root):
    """The C compiler without the optimising, which is most of its time: `make setup` has optimised the same sources."""
    compiler = root / "quick-gcc"
    compiler.write_text('#!/bin/sh\nexec gcc "$@" -O0\n')
    compiler.chmod(0o755)
    return compiler


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "secrets"), dirs_exist_ok=True)
    else:
        shutil.copy(source, target)


def run(built, *command):
    environ = {"PATH": f"{built / 'opt/sitelog/bin'}:/usr/bin:/bin"}
    return subprocess.run(command, cwd=built, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.timeout(SECONDS_MAX)
def test_the_image_s_steps_end_in_a_sitelog_that_runs(built):
    assert re.fullmatch(r"sitelog \d+\.\d+\.\d+\n", run(built, "sitelog", "--version").stdout)
    assert "projector" in run(built, "sitelog", "worker", "--help").stdout


def test_what_runs_for_every_event_is_compiled_in_the_image(built):
    asked = "from sitelog.streams._compiled import is_compiled; print(is_compiled())"
    assert run(built, "python", "-c", asked).stdout == "True\n"


def test_the_wheel_brings_schemas_sql_and_the_broker_s_files(built):
    program = (
        "from importlib.resources import files; from sitelog.schemas import load; "
        "from sitelog.projections import _registry; "
        "print(len(load()), len(_registry.load()), files('sitelog.projections').joinpath('_schema.sql').is_file(), "
        "files('sitelog.deploy').joinpath('broker', 'pom.xml').is_file(), "
        "files('sitelog.deploy').joinpath('broker', 'log4j2.properties').is_file())"
    )
    answer = run(built, "python", "-c", program)
    schemas, projections, *there = answer.stdout.split()
    assert int(schemas) >= 15
    assert int(projections) >= 6
    assert there == ["True"] * 3


@pytest.mark.parametrize("name", ["agents", "streams", "schemas", "projections", "deploy", "cli", "tests"])
def test_no_bare_name_of_a_folder_can_be_imported(built, name):
    assert "ModuleNotFoundError" in run(built, "python", "-c", f"import {name}").stderr


def test_faust_finds_the_transport_by_its_scheme(built):
    program = (
        "from importlib.metadata import entry_points; "
        "print([point.load().__name__ for point in entry_points(group='faust.transports') if point.name == 'batch'])"
    )
    assert run(built, "python", "-c", program).stdout == "['BatchTransport']\n"


def test_a_worker_without_a_configuration_says_so_and_ends_with_the_status_of_wrong_usage(built):
    answer = run(built, "sitelog", "worker", "projector", "--config", "/nowhere/sitelog.yaml")
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: /nowhere/sitelog.yaml")
