"""The broker's jars: fetched once with Maven from the pinned coordinates, then shared by every stack."""

import fcntl
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from importlib.resources import as_file, files
from pathlib import Path

from sitelog.deploy._java import find_maven
from sitelog.streams.errors import UnavailableError

KAFKA_VERSION = "4.3.1"
_FETCH_SECONDS_MAX = 600
_PROGRESS_FILES = 100


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return where the jars live: `SITELOG_KAFKA_JARS`, or else a folder of the user's cache."""
    if chosen := environ.get("SITELOG_KAFKA_JARS"):
        return Path(chosen)
    root = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".cache")
    return Path(root) / "sitelog" / f"kafka-{KAFKA_VERSION}"


def fetch_jars(
    environ: Mapping[str, str], say: Callable[[str], None], *, seconds_max: float = _FETCH_SECONDS_MAX
) -> Path:
    """Return the folder of jars, fetching them (44 MB) if it isn't there; it is whole or absent, never half.

    Two that fetch at the same time wait for each other. Raises UnavailableError without Maven or network, or when
    `seconds_max` are over.
    """
    folder = cache_folder(environ)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            say(f"Fetching Kafka {KAFKA_VERSION} with Maven (44 MB, once) into {folder}")
            _fetch(folder, environ, say, seconds_max)
    return folder


def _fetch(folder: Path, environ: Mapping[str, str], say: Callable[[str], None], seconds_max: float) -> None:
    maven = find_maven(environ)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        jars = Path(scratch) / "jars"
        with as_file(files("sitelog.deploy").joinpath("broker", "pom.xml")) as pom:
            # A copy, because Maven writes beside the pom, and the package may be read-only.
            shutil.copyfile(pom, Path(scratch) / "pom.xml")
        command = [maven, "-B", "-f", str(Path(scratch) / "pom.xml"), "dependency:copy-dependencies"]
        _run_maven([*command, f"-DoutputDirectory={jars}"], environ, say, seconds_max)
        if not list(jars.glob(f"kafka_*-{KAFKA_VERSION}.jar")):
            raise UnavailableError(f"Maven ended well but brought no kafka_*-{KAFKA_VERSION}.jar into {jars}")
        jars.rename(folder)


def _run_maven(command: list[str], environ: Mapping[str, str], say: Callable[[str], None], seconds_max: float) -> None:
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
            f"Maven couldn't fetch Kafka {KAFKA_VERSION} (exit {status}): {why}. Check the network and "
            "~/.m2/settings.xml, or put the jars into a folder and name it in SITELOG_KAFKA_JARS"
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
