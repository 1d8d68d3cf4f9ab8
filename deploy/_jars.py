"""The broker's jars: fetched once with Maven from the pinned coordinates, then shared by every stack."""

from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path

from sitelog.deploy._maven import FETCH_SECONDS_MAX, Bundle, fetch

KAFKA_VERSION = "4.3.1"


def cache_root(environ: Mapping[str, str]) -> Path:
    """Return the folder of the user's cache in which each bundle of jars has one of its own."""
    root = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".cache")
    return Path(root) / "sitelog"


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return where the broker's jars live: `SITELOG_KAFKA_JARS`, or else a folder of the user's cache."""
    if chosen := environ.get("SITELOG_KAFKA_JARS"):
        return Path(chosen)
    return cache_root(environ) / f"kafka-{KAFKA_VERSION}"


def fetch_jars(
    environ: Mapping[str, str], say: Callable[[str], None], *, seconds_max: float = FETCH_SECONDS_MAX
) -> Path:
    """Return the folder of the broker's jars; `fetch` says what happens if it isn't there, and what it raises."""
    kafka = Bundle(
        title=f"Kafka {KAFKA_VERSION}",
        size="44 MB",
        pom=files("sitelog.deploy").joinpath("broker", "pom.xml"),
        proof=f"kafka_*-{KAFKA_VERSION}.jar",
        remedy=", or put the jars into a folder and name it in SITELOG_KAFKA_JARS",
    )
    return fetch(kafka, cache_folder(environ), environ, say, seconds_max=seconds_max)
