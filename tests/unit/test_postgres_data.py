import os
from pathlib import Path

import pytest

from sitelog.deploy._postgres_data import Binaries, ensure_data, find_binaries
from sitelog.deploy._unprivileged import unprivileged_prefix
from sitelog.streams.errors import UnavailableError


@pytest.fixture
def binaries():
    """Programs that aren't there: whoever tried to run one would fail."""
    return Binaries(Path("/nowhere"), 18, ())


def test_another_version_s_data_is_refused_with_both_versions(tmp_path, binaries):
    (tmp_path / "PG_VERSION").write_text("15\n")
    with pytest.raises(UnavailableError, match=r"written by Postgres 15, /nowhere holds Postgres 18.*--postgres-bin"):
        ensure_data(tmp_path, "secret", binaries, os.environ)


def test_this_version_s_data_is_left_alone(tmp_path, binaries):
    (tmp_path / "PG_VERSION").write_text("18\n")
    ensure_data(tmp_path, "secret", binaries, os.environ)


def test_a_folder_of_something_else_is_refused(tmp_path, binaries):
    with pytest.raises(UnavailableError, match="isn't a Postgres data folder"):
        ensure_data(tmp_path, "secret", binaries, os.environ)


def test_a_folder_without_postgres_is_refused_and_the_option_is_named(tmp_path):
    with pytest.raises(UnavailableError, match=rf"no `postgres` in {tmp_path}.*--postgres-bin"):
        find_binaries(tmp_path, os.environ)


def test_the_wheel_s_postgres_is_found():
    assert find_binaries(None, os.environ).version == 18


def test_a_postgres_that_is_too_old_is_refused(tmp_path):
    for name in ("postgres", "initdb"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 12.3'\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(UnavailableError, match=r"Postgres 15 or newer is needed.*PostgreSQL\) 12\.3"):
        find_binaries(tmp_path, os.environ)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_root_without_setpriv_is_told_what_to_install(tmp_path):
    with pytest.raises(UnavailableError, match=r"`setpriv` isn't on the PATH.*util-linux"):
        unprivileged_prefix({"PATH": str(tmp_path)})
