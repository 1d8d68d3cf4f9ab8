"""The configuration's `database_config`: the primary, its read replica, their pools and their TLS."""

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sitelog.streams._section import (
    Host,
    Port,
    Problem,
    Secret,
    Section,
    Text,
    is_loopback,
    raise_if_any,
)


class PoolSettings(Section):
    """Connections that one process keeps to the primary."""

    # Connections held open; the guide's. 0 opens the first one when it is needed.
    min_connections: Annotated[int, Field(ge=0, le=1_000)] = 5
    # Connections at most; the guide's. Beyond a thousand, Postgres wants a pooler in between.
    max_connections: Annotated[int, Field(ge=1, le=1_000)] = 50
    # Milliseconds to wait for a connection; the guide's. Above ten minutes an outage would look like a hang.
    connection_timeout: Annotated[int, Field(ge=100, le=600_000)] = 30_000
    # Milliseconds after which an unused connection above the minimum is closed; the guide's. 0 is never.
    idle_timeout: Annotated[int, Field(ge=0, le=86_400_000)] = 600_000

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.min_connections > self.max_connections:
            raise_if_any(
                [
                    (
                        ("min_connections",),
                        f"expected at most max_connections ({self.max_connections}), got {self.min_connections}",
                    )
                ]
            )
        return self


class ReplicaPoolSettings(PoolSettings):
    """The guide's pool of the read replica; a command takes one connection, so that only the timeout has an effect."""

    # Checked only: no process holds connections to the replica open. The guide's.
    min_connections: Annotated[int, Field(ge=0, le=1_000)] = 3
    # Checked only: a command takes one connection. The guide's.
    max_connections: Annotated[int, Field(ge=1, le=1_000)] = 30
    # Checked only: a command closes its connection when it ends. The guide's.
    idle_timeout: Annotated[int, Field(ge=0, le=86_400_000)] = 600_000


class DatabaseSettings(Section):
    """One Postgres server and the role to use there."""

    # A name, an address, or the folder of a Unix socket.
    host: Host
    # Postgres's own.
    port: Port = 5432
    # Its name; it must be there.
    database: Text
    # The role that it is used as: `sitelog db init` creates it where it may, with no more rights than it needs.
    username: Text
    # The role's, as ${NAME}; none where the server asks for none.
    password: Secret | None = None
    # The guide's: encrypted or not at all. verify-full proves besides that it is the right server.
    ssl_mode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "require"
    # A PEM file of the authorities to trust with verify-ca and verify-full; none means the operating system's.
    ssl_rootcert: Text | None = None
    connection_pool: PoolSettings = PoolSettings()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        raise_if_any(list(self._tls_problems()))
        return self

    def _tls_problems(self) -> Iterable[Problem]:
        if self.ssl_mode in {"allow", "prefer"} and not is_loopback(self.host):
            yield (
                ("ssl_mode",),
                (
                    f"expected require, verify-ca or verify-full for {self.host}, got {self.ssl_mode}, "
                    "which goes on in clear when the server has no TLS (disable says that this is meant)"
                ),
            )
        if self.ssl_rootcert is not None and not self.ssl_mode.startswith("verify-"):
            yield (
                ("ssl_rootcert",),
                f"expected none, as ssl_mode {self.ssl_mode} verifies no certificate, got one",
            )


class ReplicaSettings(DatabaseSettings):
    """The read replica: queries go there where they may be a little behind."""

    connection_pool: ReplicaPoolSettings = ReplicaPoolSettings()


class OwnerSettings(Section):
    """Who may create and change tables, on the primary: for `sitelog db init`, `replay` and `position set`."""

    # The role that owns the tables.
    username: Text
    # The role's, as ${NAME}.
    password: Secret | None = None


class DatabasesSettings(Section):
    """Where the log and the read models are."""

    # The log, the read models and every position.
    primary: DatabaseSettings
    # None means that queries go to the primary.
    read_replica: ReplicaSettings | None = None
    # Not for workers: who doesn't have it can change no table.
    owner: OwnerSettings | None = None
