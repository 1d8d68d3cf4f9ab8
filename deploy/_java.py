"""Finding a JVM that can run the broker, and Maven, which fetches it."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from sitelog.streams.errors import UnavailableError

JAVA_VERSION_MIN = 17
_INSTALL_JAVA = "Install one (Debian: `apt-get install openjdk-17-jre-headless`) or point JAVA_HOME at it"
_INSTALL_MAVEN = "Install it (Debian: `apt-get install maven`); it is needed once, to fetch Kafka's jars"


def find_java(environ: Mapping[str, str]) -> str:
    """Return the path of JAVA_HOME's or else the PATH's `java`.

    Raises UnavailableError if there is none or if it is older than the broker needs.
    """
    home = environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java", path=environ.get("PATH", ""))
    if java is None or not Path(java).exists():
        where = f"{java} (from JAVA_HOME) doesn't exist" if home else "no `java` on the PATH"
        raise UnavailableError(f"Kafka needs a Java {JAVA_VERSION_MIN} or newer, and there is {where}. {_INSTALL_JAVA}")
    version = _version(java, environ)
    if version < JAVA_VERSION_MIN:
        raise UnavailableError(
            f"Kafka needs Java {JAVA_VERSION_MIN} or newer, {java} is Java {version}. {_INSTALL_JAVA}"
        )
    return java


def find_maven(environ: Mapping[str, str]) -> str:
    """Return the path of `mvn`; raise UnavailableError if there is none."""
    maven = shutil.which("mvn", path=environ.get("PATH", ""))
    if maven is None:
        raise UnavailableError(f"Maven (`mvn`) isn't on the PATH. {_INSTALL_MAVEN}")
    return maven


def _version(java: str, environ: Mapping[str, str]) -> int:
    answer = subprocess.run(  # noqa: S603 - the user's own java
        [java, "-version"], env=dict(environ), capture_output=True, text=True, check=False, timeout=30
    )
    found = re.search(r'version "(\d+)(?:\.(\d+))?', answer.stderr)
    if answer.returncode != 0 or found is None:
        raise UnavailableError(f"`{java} -version` failed: {answer.stderr.strip()[:300]}. {_INSTALL_JAVA}")
    # Up to Java 8 the version was called 1.8.
    major, minor = int(found[1]), int(found[2] or 0)
    return minor if major == 1 else major
