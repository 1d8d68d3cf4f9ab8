import shutil
from multiprocessing import get_context
from pathlib import Path

import pytest

from sitelog.deploy._disk import require_free_space
from sitelog.deploy._folder import clear, content, locked, require_ours, take
from sitelog.streams.errors import ConfigError, UnavailableError


def test_a_folder_with_something_else_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match=r"isn't a folder that `sitelog up` made.*--dir"):
        require_ours(tmp_path)


def test_a_file_in_the_folder_s_place_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="isn't a folder"):
        require_ours(tmp_path / "file")


def test_a_new_an_empty_and_an_own_folder_are_taken(tmp_path):
    require_ours(tmp_path / "new")
    require_ours(tmp_path)
    with locked(tmp_path):
        (tmp_path / "kafka-1").mkdir()
    require_ours(tmp_path)


def test_a_folder_with_a_comma_is_refused_which_kafka_would_take_for_two(tmp_path):
    with pytest.raises(ConfigError, match=r"without a comma in its path, found .*one,two/stack\. Name another"):
        take(tmp_path / "one,two" / "stack")
    assert list(tmp_path.iterdir()) == []


def test_only_its_owner_can_enter_a_folder_that_is_new_or_was_empty(tmp_path):
    (tmp_path / "empty").mkdir(mode=0o755)
    for name in ("new", "empty"):
        take(tmp_path / name)
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700


def test_a_folder_that_its_owner_has_opened_to_others_since_stays_so(tmp_path):
    with locked(tmp_path):
        tmp_path.chmod(0o755)
    take(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_an_empty_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    def chmod(*_, **__):
        raise PermissionError

    monkeypatch.setattr(Path, "chmod", chmod)
    with pytest.raises(ConfigError, match=rf"a folder of your own.*found {tmp_path} of user \d+\. Name another"):
        take(tmp_path)


def test_clearing_deletes_the_stack_s_own_things_and_nothing_else(tmp_path):
    for name in ("kafka-1", "kafka-2", "postgres", "logs", "run"):
        (tmp_path / name / "deep").mkdir(parents=True)
    for name in ("state.json", "sitelog.yaml", "env", "notes.txt"):
        (tmp_path / name).touch()
    assert "notes.txt" not in [path.name for path in content(tmp_path)]
    clear(tmp_path)
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_clearing_that_is_cut_off_leaves_nothing_that_passes_for_a_stack(tmp_path, monkeypatch):
    """With its state, a plain `up` would join a new Kafka to a Postgres that has applied another one's events."""

    def rmtree(_):
        raise KeyboardInterrupt

    (tmp_path / "kafka-1").mkdir()
    (tmp_path / "postgres").mkdir()
    (tmp_path / "state.json").touch()
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    with pytest.raises(KeyboardInterrupt):
        clear(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kafka-1", "postgres"]
    monkeypatch.undo()
    clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_commands_at_once_do_not_start_everything_twice(tmp_path):
    with locked(tmp_path):
        process = get_context("spawn").Process(target=_lock, args=(tmp_path,))
        process.start()
        process.join()
    assert process.exitcode == 3
    with locked(tmp_path):
        pass


def _lock(folder):
    try:
        with locked(folder):
            raise SystemExit(0)
    except UnavailableError as error:
        assert "another `sitelog up` or `sitelog down` is at work" in str(error)  # noqa: PT017 - another process
        raise SystemExit(3) from None


def test_a_full_disk_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(UnavailableError, match=r"MiB free, at least 1099511627776 MiB are needed\. Free some space"):
        require_free_space(tmp_path, 1 << 60)


def test_enough_space_is_enough(tmp_path):
    require_free_space(tmp_path, 1)
