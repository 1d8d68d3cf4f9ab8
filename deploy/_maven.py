"""Jars by their pinned coordinates: fetched once with Maven, and there whole or not at all."""

import fcntl
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import as_file
from importlib.resources.abc import Traversable
from pathlib import Path

from sitelog.deploy._java import find_maven
from sitelog.streams.errors import UnavailableError

FETCH_SECONDS_MAX = 600
_PROGRESS_FILES = 100


@dataclass(frozen=True)
class Bundle:
    """Jars that are used together.

    `pom` pins them, `proof` is a pattern of file names of which Maven must have brought one, `remedy` what else the
    user can do, and `finish` is called with the folder before anybody can see it.
    """

    title: str
    size: str
    pom: Traversable
    proof: str
    remedy: str = ""
    finish: Callable[[Path], None] | None = None


def fetch(
    bundle: Bundle,
    folder: Path,
    environ: Mapping[str, str],
    say: Callable[[str], None],
    *,
    seconds_max: float = FETCH_SECONDS_MAX,
) -> Path:
    """Return `folder`, fetching the jars into it if it isn't there; it is whole or absent, never half.

    Two that fetch at the same time wait for each other. Raises UnavailableError without Maven or network, or when
    `seconds_max` are over.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            say(f"Fetching {bundle.title} with Maven ({bundle.size}, once) into {folder}")
            _fetch(bundle, folder, environ, say, seconds_max)
    return folder


def _fetch(
    bundle: Bundle, folder: Path, environ: Mapping[str, str], say: Callable[[str], None], seconds_max: float
) -> None:
    maven = find_maven(environ)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        jars = Path(scratch) / "jars"
        with as_file(bundle.pom) as pom:
            # A copy, because Maven writes beside the pom, and the package may be read-only.
            shutil.copyfile(pom, Path(scratch) / "pom.xml")
        command = [maven, "-B", "-f", str(Path(scratch) / "pom.xml"), "dependency:copy-dependencies"]
        _run_maven(bundle, [*command, f"-DoutputDirectory={jars}"], environ, say, seconds_max)
        if not list(jars.glob(bundle.proof)):
            raise UnavailableError(f"Maven ended well but brought no {bundle.proof} into {jars}")
        if bundle.finish is not None:
            bundle.finish(jars)
        jars.rename(folder)


def _run_maven(
    bundle: Bundle, command: list[str], environ: Mapping[str, str], say: Callable[[str], None], seconds_max: float
) -> None:
    with subprocess.Popen(  # noqa: S603 - the user's own Maven, our own arguments
        command, env=dict(environ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        # Maven waits for a silent network for ever; its end is also the end of its output.
        deadline = threading.Timer(seconds_max, process.kill)
        deadline.start()
        try:
            errors = _follow(process.stdout or (), say)
            status = process.wait()
        finally:
            deadline.cancel()
    if status != 0:
        why = " ".join(errors[:3]) or f"no reason given; it may take {seconds_max:g} s"
        raise UnavailableError(
            f"Maven couldn't fetch {bundle.title} (exit {status}): {why}. Check the network and "
            f"~/.m2/settings.xml{bundle.remedy}"
        )


def _follow(lines: Iterable[str], say: Callable[[str], None]) -> list[str]:
    """Tell the progress while Maven works, and return its error lines."""
    errors, arrived = [], 0
    for line in lines:
        if "[ERROR]" in line:
            errors.append(line.strip())
        # Maven's own plugins are among the files that it downloads the first time.
        if "Downloaded from " in line or "] Copying " in line:
            arrived += 1
            if arrived % _PROGRESS_FILES == 0:
                say(f"  {arrived} files")
    return errors
