"""What the figures were measured on: a figure without its machine and its versions says nothing."""

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import psutil

_LIBRARIES: Final = (
    "faust-streaming",
    "mode-streaming",
    "aiokafka",
    "asyncpg",
    "fastavro",
    "cramjam",
    "pydantic",
    "orjson",
)
_POM: Final = Path(__file__).parents[2] / "deploy" / "broker" / "pom.xml"


async def describe(connection: Any) -> dict[str, Any]:
    """Return machine and versions, in the order in which a reader wants them."""
    memory = psutil.virtual_memory()
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory.total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        # Above the number of cores, somebody else was at work too, and the figures are too low.
        "load_before": round(psutil.getloadavg()[0], 1),
        "commit": _commit(),
        "python": platform.python_version(),
        "kafka": _kafka(),
        "postgres": await connection.fetchval("SHOW server_version"),
        "fsync": await connection.fetchval("SHOW fsync"),
        "synchronous_commit": await connection.fetchval("SHOW synchronous_commit"),
        **{library: version(library) for library in _LIBRARIES},
    }


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except FileNotFoundError:
        return platform.processor()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor()


def _commit() -> str:
    """Return the commit, with a plus where the tree has other changes; nothing outside a repository."""
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=_POM.parent, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()


def _kafka() -> str | None:
    """Return the version that deploy/ pins."""
    return ET.parse(_POM).getroot().findtext("{*}version")  # noqa: S314 - our own file
