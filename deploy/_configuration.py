"""The configuration that a stack writes for its clients: `sitelog.yaml`, and `env` for a shell."""

import shlex
from pathlib import Path
from typing import Any

import yaml

from sitelog.deploy._ports import LOOPBACK
from sitelog.deploy._state import APP_ROLE, DATABASE, OWNER_ROLE, READ_ROLE, StackState, write_private

_REPLICAS_WANTED = 3
_PARTITIONS = {"customer-sites-events": 6, "territory-events": 3}
_WEEK_MS = 604_800_000
_HEADER = (
    "# Written by `sitelog up` at each start, with this stack's own ports and passwords: don't edit it, copy it.\n"
)


def configuration(state: StackState, *, database: str = DATABASE) -> dict[str, Any]:
    """Return the whole configuration of the stack, in the shape of the integration guide."""
    return {
        "kafka_config": {
            "bootstrap_servers": state.bootstrap_servers,
            "security_protocol": "PLAINTEXT",
            "topics": {
                topic: {
                    "partitions": partitions,
                    "replication_factor": min(_REPLICAS_WANTED, len(state.brokers)),
                    "retention_ms": _WEEK_MS,
                    "compression_type": "snappy",
                }
                for topic, partitions in _PARTITIONS.items()
            },
        },
        "database_config": {
            "primary": _database(state, database, APP_ROLE, state.app_password.get_secret_value(), (5, 50)),
            # The same server: what is read there is never behind, but the role may only read.
            "read_replica": _database(state, database, READ_ROLE, state.read_password.get_secret_value(), (3, 30)),
            "owner": {"username": OWNER_ROLE, "password": state.owner_password.get_secret_value()},
        },
    }


def write_configuration(folder: Path, state: StackState) -> Path:
    """Write `sitelog.yaml` and `env`, readable by their owner alone, and return the former's path."""
    path = folder / "sitelog.yaml"
    write_private(path, _HEADER + yaml.safe_dump(configuration(state), sort_keys=False))
    write_private(folder / "env", shell_environment(path, state))
    return path


def shell_environment(path: Path, state: StackState) -> str:
    """Return lines that a shell can source, so that psql, kcat and any other client can connect."""
    password = state.app_password.get_secret_value()
    values = {
        "SITELOG_CONFIG": str(path),
        "KAFKA_BOOTSTRAP_SERVERS": ",".join(state.bootstrap_servers),
        "PGHOST": LOOPBACK,
        "PGPORT": str(state.postgres_port),
        "PGUSER": APP_ROLE,
        "PGPASSWORD": password,
        "PGDATABASE": DATABASE,
        "DATABASE_URL": f"postgresql://{APP_ROLE}:{password}@{LOOPBACK}:{state.postgres_port}/{DATABASE}",
    }
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())


def _database(
    state: StackState, database: str, role: str, password: str, connections: tuple[int, int]
) -> dict[str, Any]:
    return {
        "host": LOOPBACK,
        "port": state.postgres_port,
        "database": database,
        "username": role,
        "password": password,
        # The wheel's Postgres has no TLS, and the loopback interface is nobody else's.
        "ssl_mode": "disable",
        "connection_pool": {
            "min_connections": connections[0],
            "max_connections": connections[1],
            "connection_timeout": 30_000,
            "idle_timeout": 600_000,
        },
    }
