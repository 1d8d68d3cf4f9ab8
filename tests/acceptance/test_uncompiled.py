"""The same code without a compiler: what is compiled must do the same as plain Python."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sitelog.streams._compiled import is_compiled

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "streams", "projections")
TESTS = (
    "test_codec.py",
    "test_fold.py",
    "test_intake.py",
    "test_log_rows.py",
    "test_merge.py",
    "test_packed_rows.py",
    "test_writers.py",
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder with the packages as plain files, to be found before the installed ones."""
    folder = tmp_path_factory.mktemp("uncompiled")
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / package, folder / "sitelog" / package, ignore=ignored)
    return folder


def python(sources, *arguments):
    environ = os.environ | {"PYTHONPATH": str(sources), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=170)


def test_these_tests_run_on_compiled_code_unless_none_was_asked_for():
    assert is_compiled() == any((ROOT / "streams").glob("*.so"))


def test_plain_python_passes_the_tests_of_the_compiled_modules(sources):
    told = python(sources, "-c", "from sitelog.streams._compiled import is_compiled; print(is_compiled())")
    assert told.stdout == "False\n", told.stderr
    files = [f"tests/unit/{name}" for name in TESTS]
    run = python(sources, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *files)
    assert run.returncode == 0, run.stdout
