"""Running Postgres, which refuses to run as root, for a root user: in a container, in CI."""

import os
import pwd
import shutil
from collections.abc import Mapping
from pathlib import Path

from sitelog.streams.errors import UnavailableError

_USER = "nobody"


def unprivileged_prefix(environ: Mapping[str, str]) -> list[str]:
    """Return what to put before a command so that it doesn't run as root; nothing for an ordinary user.

    The process becomes `nobody` but keeps one capability, reaching files whose folders it may not enter. So no
    system user is created, and neither the home folder of root nor the virtual environment is opened to others.
    Raises UnavailableError if root's system lacks `setpriv`.
    """
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv", path=environ.get("PATH", ""))
    if setpriv is None:
        raise UnavailableError(
            "Postgres doesn't run as root, and `setpriv` isn't on the PATH to run it as another user. "
            "Install it (Debian, Alpine: package util-linux), or run `sitelog up` as an ordinary user"
        )
    capability = "+dac_override"
    user = pwd.getpwnam(_USER)
    identity = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return [setpriv, *identity, f"--inh-caps={capability}", f"--ambient-caps={capability}", "--"]


def give_to_unprivileged(path: Path) -> None:
    """Make the user that `unprivileged_prefix` switches to the owner of `path`; nothing for an ordinary user."""
    if os.geteuid() == 0:
        user = pwd.getpwnam(_USER)
        os.chown(path, user.pw_uid, user.pw_gid)
