"""The Postgres of `sitelog up` with TLS. The wheel's has none, so this takes one that the system has."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from sitelog.deploy._postgres_data import ensure_data, find_binaries
from sitelog.deploy._state import StackState
from sitelog.deploy._unprivileged import give_to_unprivileged
from sitelog.deploy.postgres import connect_as_superuser, start_postgres
from tests.certificates import Authority, Identity

# Where Debian, Ubuntu, Red Hat and Alpine put it.
INSTALLED = ("lib/postgresql/*/bin", "pgsql-*/bin", "libexec/postgresql*")


def system_postgres() -> Path:
    """Return the folder of an installed Postgres, the newest; skip the test where there is none."""
    found = [path.parent for pattern in INSTALLED for path in Path("/usr").glob(f"{pattern}/postgres")]
    if on_path := shutil.which("postgres"):
        found.append(Path(on_path).resolve().parent)
    if not found:
        pytest.skip("no Postgres with TLS: install one (Debian: apt-get install postgresql)")
    return max(found, key=str)


class SecurePostgres:
    """`authority` signed the certificate of the server, which is called `localhost`."""

    def __init__(self, folder: Path, state: StackState) -> None:
        self.state = state.model_copy(update={"postgres_bin": system_postgres()})
        self.authority = Authority()
        self.rootcert = folder / "postgres-authority.pem"
        self._folder = folder

    async def start(self) -> None:
        """Start the server; it takes connections with and without TLS, as servers do."""
        self.rootcert.write_bytes(self.authority.pem)
        binaries = find_binaries(self.state.postgres_bin, os.environ)
        data = self._folder / "postgres"
        password = self.state.superuser_password.get_secret_value()
        await asyncio.to_thread(ensure_data, data, password, binaries, os.environ)
        self._write(self.authority.issue())
        with (data / "postgresql.conf").open("a") as settings:
            settings.write("ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n")
        await start_postgres(self._folder, self.state, os.environ)

    async def show(self, identity: Identity) -> None:
        """Let the server use another certificate; it takes a moment until it does."""
        self._write(identity)
        connection = await connect_as_superuser(self.state)
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()

    def _write(self, identity: Identity) -> None:
        for name, content in (("server.crt", identity.certificate), ("server.key", identity.key)):
            path = self._folder / "postgres" / name
            path.touch(mode=0o600)
            path.write_bytes(content)
            give_to_unprivileged(path)
