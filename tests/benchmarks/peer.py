"""A contender that is somebody else's program: what it needs before its first run, and how it is started."""

import hashlib
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sitelog.deploy._jars import cache_root
from sitelog.deploy._java import find_java
from sitelog.deploy._maven import Bundle, fetch
from tests.benchmarks.services import Database

JVM: Final = Path(__file__).with_name("jvm")
# What connect-standalone.sh gives its JVM; Flink's scripts leave a local cluster a quarter of the machine's memory.
HEAP: Final = ("-Xms256M", "-Xmx2G")


@dataclass(frozen=True)
class Launch:
    """One process: its command, and what its environment has besides the benchmark's own."""

    command: list[str]
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """`prepare` fetches whatever isn't there yet, `launch` writes what one run's process reads and tells its command.

    `prepare` raises UnavailableError with what to do. `topic` is the one that the process reads.
    """

    version: str
    topic: str
    prepare: Callable[[Callable[[str], None]], None]
    launch: Callable[[Database], Launch]


def password(database: Database) -> str:
    """Return what the application's role logs in with."""
    secret = database.settings.database_config.primary.password
    return secret.get_secret_value() if secret else ""


def bundle_folder(bundle: Bundle) -> Path:
    """Return where this bundle's jars are or will be: another pom is another folder."""
    digest = hashlib.sha256(bundle.pom.read_bytes()).hexdigest()[:12]
    return cache_root(os.environ) / f"{bundle.title.lower().replace(' ', '-')}-{digest}"


def fetch_bundle(bundle: Bundle, say: Callable[[str], None]) -> None:
    """Fetch a bundle's jars if they aren't there. Raises UnavailableError."""
    find_java(os.environ)
    fetch(bundle, bundle_folder(bundle), os.environ, say)


def java_version() -> str:
    """Return the JVM's version, as it calls itself."""
    answer = subprocess.run([find_java(os.environ), "-version"], capture_output=True, text=True, check=True, timeout=30)
    return answer.stderr.split('"')[1]


def java(bundle: Bundle, *arguments: str) -> list[str]:
    """Return the command of a JVM that has the bundle's jars on its class path, and logs warnings alone."""
    logging = f"-Dlog4j2.configurationFile={JVM / 'log4j2.properties'}"
    return [find_java(os.environ), *HEAP, logging, "-cp", f"{bundle_folder(bundle)}/*", *arguments]
