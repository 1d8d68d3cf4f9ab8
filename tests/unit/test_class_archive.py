"""The JVM's archive of classes: made once, beside the jars, and never in somebody's way."""

import sys
from pathlib import Path

import pytest

from sitelog.deploy._class_archive import ClassArchive


@pytest.fixture
def archive(tmp_path: Path) -> ClassArchive:
    return ClassArchive.of(sys.executable, tmp_path)


def written(options: list[str]) -> Path:
    """The file that a JVM with these options makes."""
    return Path(options[-1].removeprefix("-XX:ArchiveClassesAtExit="))


def test_it_is_made_by_the_first_process_and_used_by_the_next(archive: ClassArchive) -> None:
    assert archive.options == []
    with archive.making() as options:
        written(options).touch()
    assert archive.options == [f"-XX:SharedArchiveFile={archive.path}"]
    with archive.making() as options:
        assert options == archive.options


def test_a_process_that_makes_none_leaves_none(archive: ClassArchive) -> None:
    with archive.making():
        pass
    assert archive.options == []


def test_one_whose_process_failed_is_not_kept(archive: ClassArchive) -> None:
    def fail() -> None:
        with archive.making() as options:
            written(options).touch()
            raise RuntimeError("no format")

    with pytest.raises(RuntimeError, match="no format"):
        fail()
    assert list(archive.path.parent.iterdir()) == []


def test_where_nothing_can_be_written_it_is_done_without(tmp_path: Path) -> None:
    with ClassArchive.of(sys.executable, tmp_path / "nowhere").making() as options:
        assert options == []
