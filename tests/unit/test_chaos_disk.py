"""The disk that can be full is full, and gets room again; nothing of it is left when its folder goes."""

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import watchdog
from tests.chaos.disk import MARGIN_BYTES, Disk

MORE_BYTES = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk")
    yield disk
    watchdog.unmount(tmp_path)


def needs_mount(disk: Disk) -> None:
    if not disk.can_be_full:
        pytest.skip("only root may mount a small disk")


def test_a_full_disk_takes_no_more_than_a_few_pages_until_there_is_room_again(disk: Disk) -> None:
    needs_mount(disk)
    (disk.path / "before").write_bytes(b"x" * MORE_BYTES)
    disk.fill()
    assert (disk.path / "before").stat().st_size == MORE_BYTES
    with pytest.raises(OSError, match="No space left") as refused:
        (disk.path / "after").write_bytes(b"x" * (MARGIN_BYTES + MORE_BYTES))
    assert refused.value.errno == errno.ENOSPC
    disk.free()
    (disk.path / "after").write_bytes(b"x" * MORE_BYTES)


def test_a_disk_that_is_written_to_while_it_is_filled_is_full_all_the_same(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_mount(disk)
    looks, really = [0], Disk._used

    def used(self: Disk) -> int:
        before = really(self)
        looks[0] += 1
        if looks[0] <= 3:
            (disk.path / f"{looks[0]}").write_bytes(b"x" * (MARGIN_BYTES + MORE_BYTES))
        return before

    monkeypatch.setattr(Disk, "_used", used)
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        (disk.path / "after").write_bytes(b"x" * (MARGIN_BYTES + MORE_BYTES))


def test_a_disk_that_can_t_be_filled_or_freed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    disk = Disk(tmp_path / "disk")
    monkeypatch.setattr(disk, "_mount", lambda _: False)
    with pytest.raises(OSError, match="expected it to be full"):
        disk.fill()
    with pytest.raises(OSError, match="expected 1073741824 bytes"):
        disk.free()


def test_the_watchdog_removes_a_folder_with_what_is_mounted_in_it(disk: Disk) -> None:
    needs_mount(disk)
    folder = disk.path.parent
    (disk.path / "data").write_bytes(b"x")

    subprocess.run([sys.executable, watchdog.__file__, str(folder)], stdin=subprocess.DEVNULL, check=True, timeout=60)

    assert not folder.exists()
    assert str(folder) not in Path("/proc/mounts").read_text(encoding="utf-8")


def test_where_nothing_can_be_mounted_the_disk_is_a_folder_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    disk = Disk(tmp_path / "disk")
    (disk.path / "data").write_bytes(b"x")
    assert not disk.can_be_full
