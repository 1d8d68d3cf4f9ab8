"""Refusing to start where the disk is about to be full."""

import shutil
from pathlib import Path

from sitelog.streams.errors import UnavailableError

_MIB = 1024 * 1024
# Postgres preallocates its log in steps of 16 MB and Kafka its indexes, before a single event is kept.
FREE_BYTES_MIN = 1024 * _MIB
FREE_SOME = "The disk is full: free some space, then run `sitelog up` again"


def require_free_space(folder: Path, bytes_min: int) -> None:
    """Raise UnavailableError if fewer than `bytes_min` bytes are free where `folder` is."""
    free = shutil.disk_usage(folder).free
    if free < bytes_min:
        raise UnavailableError(
            f"the disk of {folder} has {free // _MIB} MiB free, at least {bytes_min // _MIB} MiB are needed. "
            "Free some space, or name a folder on another disk with --dir"
        )
