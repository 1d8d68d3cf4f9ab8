"""A disk that can be full: a small file system in memory for Postgres, which root may mount and resize."""

import os
import subprocess
from pathlib import Path

SIZE_BYTES = 1 << 30
"""Far more than a run writes; only what is written takes memory."""

MARGIN_BYTES = 16_384
"""Left when the disk is full: a few pages more, and nothing goes on."""

FILL_ATTEMPTS_MAX = 100


class Disk:
    """A tmpfs at `path` where root can have one, else an ordinary folder that can't be filled.

    The folder's watchdog unmounts it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.can_be_full = os.geteuid() == 0 and self._mount(f"size={SIZE_BYTES},mode=755")

    def fill(self) -> None:
        """Let there be no room from now on. Raises OSError."""
        # The kernel refuses a size that is smaller than what was written while it was asked.
        if not any(self._mount(f"remount,size={self._used() + MARGIN_BYTES}") for _ in range(FILL_ATTEMPTS_MAX)):
            raise OSError(f"{self.path}: expected it to be full, the kernel refused that {FILL_ATTEMPTS_MAX} times")

    def free(self) -> None:
        """Let there be room again. Raises OSError."""
        if not self._mount(f"remount,size={SIZE_BYTES}"):
            raise OSError(f"{self.path}: expected {SIZE_BYTES} bytes, the kernel refused them")

    def _used(self) -> int:
        stat = os.statvfs(self.path)
        return (stat.f_blocks - stat.f_bfree) * stat.f_frsize

    def _mount(self, options: str) -> bool:
        """Return whether it could be done: a container may not let its root mount anything."""
        command = ["mount", "-t", "tmpfs", "-o", options, "sitelog-chaos", str(self.path)]
        return subprocess.run(command, check=False, capture_output=True, timeout=20).returncode == 0
