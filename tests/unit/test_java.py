import os
import subprocess
from pathlib import Path

import pytest

from sitelog.deploy._java import find_java, find_maven
from sitelog.streams.errors import UnavailableError


def fake(folder, name, body):
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    "said",
    ['openjdk version "17.0.15" 2025-04-15', 'openjdk version "21" 2023-09-19', 'java version "26-ea" 2026-03-17'],
)
def test_a_java_that_is_new_enough_is_taken_from_the_path(tmp_path, said):
    java = fake(tmp_path, "java", f"echo '{said}' >&2")
    assert find_java({"PATH": str(tmp_path)}) == str(java)


@pytest.mark.parametrize(
    ("said", "version"), [('openjdk version "11.0.2" 2019-01-15', "11"), ('java version "1.8.0_392"', "8")]
)
def test_an_older_java_is_refused_with_both_versions(tmp_path, said, version):
    fake(tmp_path, "java", f"echo '{said}' >&2")
    with pytest.raises(UnavailableError, match=rf"Java 17 or newer.*is Java {version}\. Install one"):
        find_java({"PATH": str(tmp_path)})


def test_without_java_the_message_says_how_to_get_one(tmp_path):
    with pytest.raises(UnavailableError, match=r"no `java` on the PATH.*apt-get install"):
        find_java({"PATH": str(tmp_path)})


def test_java_home_goes_before_the_path(tmp_path):
    fake(tmp_path / "path", "java", "echo 'version \"17\"' >&2")
    chosen = fake(tmp_path / "home" / "bin", "java", "echo 'version \"21\"' >&2")
    assert find_java({"PATH": str(tmp_path / "path"), "JAVA_HOME": str(tmp_path / "home")}) == str(chosen)


def test_a_java_home_without_a_java_is_named(tmp_path):
    with pytest.raises(UnavailableError, match=r"nowhere/bin/java \(from JAVA_HOME\) doesn't exist"):
        find_java({"PATH": os.environ["PATH"], "JAVA_HOME": str(tmp_path / "nowhere")})


def test_a_java_that_fails_is_quoted(tmp_path):
    fake(tmp_path, "java", "echo 'libjvm.so is missing' >&2; exit 1")
    with pytest.raises(UnavailableError, match=r"libjvm\.so is missing"):
        find_java({"PATH": str(tmp_path)})


def test_without_maven_the_message_says_how_to_get_it(tmp_path):
    with pytest.raises(UnavailableError, match=r"Maven \(`mvn`\) isn't on the PATH.*apt-get install maven"):
        find_maven({"PATH": str(tmp_path)})


def setup_check(tmp_path, **environ):
    """Run what `make setup` has between asking Python and asking for Maven: its check of Java, and nothing else."""
    lines = (Path(__file__).parents[2] / "Makefile").read_text().splitlines(keepends=True)
    head = [line for line in lines if line.startswith(("SHELL :=", ".SHELLFLAGS :=", "APT :="))]
    begin = next(number for number, line in enumerate(lines) if line.startswith("\t@java="))
    end = next(number for number, line in enumerate(lines) if line.startswith("\t@command -v mvn"))
    makefile = tmp_path / "Makefile"
    makefile.write_text("".join([*head, "check:\n", *lines[begin:end]]))
    path = f"{tmp_path / 'path'}:{os.environ['PATH']}"
    rest = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"}
    return subprocess.run(
        ["make", "--no-print-directory", "-f", str(makefile), "check"],
        env={**rest, "PATH": path, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_make_setup_takes_a_java_that_says_first_which_options_it_has_picked_up(tmp_path):
    fake(tmp_path / "path", "java", """echo 'Picked up JAVA_TOOL_OPTIONS: -Xmx1g' >&2; echo 'version "17.0.1"' >&2""")
    done = setup_check(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_make_setup_takes_java_home_s_before_the_path_s_as_up_does(tmp_path):
    fake(tmp_path / "path", "java", "echo 'version \"11.0.2\"' >&2")
    fake(tmp_path / "a home" / "bin", "java", "echo 'version \"21\"' >&2")
    assert setup_check(tmp_path, JAVA_HOME=str(tmp_path / "a home")).returncode == 0
    refused = setup_check(tmp_path)
    assert refused.returncode != 0
    assert "Java 17 or newer is needed to run Kafka, got 11: apt-get install" in refused.stderr


def test_make_setup_refuses_where_there_is_no_java(tmp_path):
    refused = setup_check(tmp_path, JAVA_HOME=str(tmp_path / "nowhere"))
    assert refused.returncode != 0
    assert "got none: apt-get install" in refused.stderr
