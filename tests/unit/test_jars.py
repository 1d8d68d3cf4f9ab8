import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sitelog.deploy._jars import KAFKA_VERSION, cache_folder, fetch_jars
from sitelog.deploy._maven import Bundle, fetch
from sitelog.streams.errors import UnavailableError

BRINGS = f"""
for argument in "$@"; do case "$argument" in -DoutputDirectory=*) out="${{argument#*=}}" ;; esac; done
mkdir -p "$out"; echo x > "$out/kafka_2.13-{KAFKA_VERSION}.jar"; echo ran >> "$COUNT"
"""


@pytest.fixture
def maven(tmp_path):
    """Returns a function that sets what `mvn` does, and gives back the environment that finds it."""

    def script(body):
        program = tmp_path / "bin" / "mvn"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        path = f"{program.parent}:{os.environ['PATH']}"
        return {"PATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache"), "COUNT": str(tmp_path / "count")}

    return script


def test_the_jars_are_fetched_once_and_then_found(maven, tmp_path):
    environ = maven(BRINGS)
    said = []
    folder = fetch_jars(environ, said.append)
    assert [jar.name for jar in folder.iterdir()] == [f"kafka_2.13-{KAFKA_VERSION}.jar"]
    assert folder == tmp_path / "cache" / "sitelog" / f"kafka-{KAFKA_VERSION}"
    assert fetch_jars({**environ, "PATH": ""}, said.append) == folder
    assert len(said) == 1
    assert "Fetching Kafka" in said[0]


def test_a_failed_fetch_leaves_nothing_that_looks_like_jars_and_says_why(maven):
    environ = maven(BRINGS + "echo '[ERROR] Could not resolve artifact: no route to host'; exit 1")
    with pytest.raises(UnavailableError, match=r"exit 1.*no route to host.*Check the network"):
        fetch_jars(environ, print)
    folder = cache_folder(environ)
    assert not folder.exists()
    assert [path.name for path in folder.parent.iterdir()] == [f"{folder.name}.lock"]


def test_a_maven_that_brings_no_broker_is_not_believed(maven):
    environ = maven("exit 0")
    with pytest.raises(UnavailableError, match="ended well but brought no kafka_"):
        fetch_jars(environ, print)
    assert not cache_folder(environ).exists()


def test_a_maven_that_hangs_is_ended_in_time(maven):
    environ = maven("exec sleep 60")
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=r"exit -9.*it may take 0.3 s"):
        fetch_jars(environ, print, seconds_max=0.3)
    assert time.monotonic() - began < 10
    assert not cache_folder(environ).exists()


def test_two_at_once_fetch_once(maven, tmp_path):
    environ = maven("sleep 0.2\n" + BRINGS)
    with ThreadPoolExecutor(2) as pool:
        folders = set(pool.map(lambda _: fetch_jars(environ, print), range(2)))
    assert len(folders) == 1
    assert (tmp_path / "count").read_text() == "ran\n"


def test_progress_is_told_now_and_then(maven):
    environ = maven("for i in $(seq 250); do echo '[INFO] Downloaded from central: x'; done\n" + BRINGS)
    said = []
    fetch_jars(environ, said.append)
    assert said[1:] == ["  100 files", "  200 files"]


def test_another_folder_can_be_named(tmp_path):
    (tmp_path / "mine").mkdir()
    assert fetch_jars({"SITELOG_KAFKA_JARS": str(tmp_path / "mine"), "PATH": ""}, print) == tmp_path / "mine"


def test_without_a_cache_setting_the_home_folder_has_it(tmp_path):
    assert cache_folder({"HOME": str(tmp_path)}).parent == tmp_path / ".cache" / "sitelog"


def test_a_bundle_is_finished_before_anybody_can_see_it(maven, tmp_path):
    folder = tmp_path / "cache" / "pair"

    def finish(jars):
        assert not folder.exists()
        (jars / "finished").touch()

    pom = tmp_path / "pom.xml"
    pom.touch()
    bundle = Bundle(title="a pair", size="1 MB", pom=pom, proof="kafka_*.jar", finish=finish)
    assert fetch(bundle, folder, maven(BRINGS), print) == folder
    assert (folder / "finished").exists()
