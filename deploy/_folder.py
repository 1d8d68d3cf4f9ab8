"""The state folder: whose it is, who works in it, and what of it is the stack's."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sitelog.streams.errors import ConfigError, UnavailableError

# All that a stack ever writes into its folder, and so the only things that a reset deletes.
_CONTENT = ("kafka-*", "postgres", "postgres.new", "run", "logs", "state.json*", "sitelog.yaml*", "env", "env.new")
_LOCK = "sitelog.lock"


def is_ours(folder: Path) -> bool:
    """Return whether a stack was ever made there."""
    return (folder / _LOCK).exists()


def require_ours(folder: Path) -> None:
    """Raise ConfigError if the folder is used for something else: a typo in --dir must not mix into it."""
    if not folder.exists() or is_ours(folder):
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise ConfigError(f"{folder} exists and isn't a folder that `sitelog up` made. Name another with --dir")


def take(folder: Path) -> None:
    """Make the folder, or take over an empty one, or leave one that is ours as it is; raise ConfigError for any other.

    Only its owner can enter it then: not every file in it is private. A path with a comma is refused too: to Kafka it
    would be a list of paths.
    """
    require_ours(folder)
    if "," in str(folder):
        raise ConfigError(f"expected a folder without a comma in its path, found {folder}. Name another with --dir")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if is_ours(folder):
        return
    try:
        folder.chmod(0o700)
    except PermissionError:
        raise ConfigError(
            f"expected a folder of your own, which others can't enter, found {folder} of user {folder.stat().st_uid}. "
            "Name another with --dir"
        ) from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only one who starts or ends anything there; raise UnavailableError if somebody else is at it."""
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UnavailableError(
                f"another `sitelog up` or `sitelog down` is at work in {folder}. Run this one when that has ended"
            ) from None
        yield


def content(folder: Path) -> list[Path]:
    """Return what a reset deletes: the stack's own files and folders, and nothing else that is there."""
    return sorted(path for pattern in _CONTENT for path in folder.glob(pattern))


def clear(folder: Path) -> None:
    """Delete the content; an interrupted clearing is finished by the next."""
    # First what holds the rest together: with it, an `up` would take what is left for a whole stack.
    (folder / "state.json").unlink(missing_ok=True)
    for path in content(folder):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
