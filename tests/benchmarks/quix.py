"""Quix Streams: an environment of its own, because its pins aren't the project's."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sitelog.streams.errors import UnavailableError
from tests.benchmarks.events import TOPIC
from tests.benchmarks.peer import Launch, Peer
from tests.benchmarks.services import Database

ROOT: Final = Path(__file__).parents[2]
LOCK: Final = Path(__file__).with_name("peers.lock")
PYTHON: Final = ROOT / ".peers" / "bin" / "python"
_INSTALL_SECONDS_MAX: Final = 600


def prepare(say: Callable[[str], None]) -> None:
    """Install what `peers.lock` names into .peers, again when it has changed. Raises UnavailableError."""
    command = ["make", "--no-print-directory", ".peers/.complete"]
    if subprocess.run([*command, "--question"], cwd=ROOT, capture_output=True, check=False).returncode == 0:
        return
    say("Installing Quix Streams (120 MB, once) into .peers")
    try:
        answer = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS_MAX
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"Installing Quix Streams took longer than {_INSTALL_SECONDS_MAX} s") from None
    if answer.returncode != 0:
        raise UnavailableError(f"Quix Streams couldn't be installed: {(answer.stderr or answer.stdout).strip()}")


def launch(database: Database) -> Launch:
    """Run `quix_program.py` with the other environment's Python; Sitelog's schemas come from the checkout."""
    return Launch(
        [str(PYTHON), "-m", "tests.benchmarks.quix_program", "--config", str(database.config)],
        {"PYTHONPATH": str(ROOT / ".typing")},
    )


def _version() -> str:
    """Return the version that the lock file pins."""
    found = re.search(r"^quixstreams==(\S+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"{LOCK} pins no quixstreams"
    return found[1]


QUIX: Final = Peer(_version(), TOPIC, prepare, launch)
# The sink asks for its schema at each start, and Postgres wants the right to create it even where it is there.
SETUP_SQL: Final = """
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO app_user', current_database()); END $$;
"""
