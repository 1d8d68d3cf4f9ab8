"""What a stack remembers between its commands: ports, passwords and how many of each it has."""

import base64
import secrets
import uuid
from pathlib import Path

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, field_serializer

from sitelog.deploy._ports import free_port
from sitelog.streams.errors import ConfigError

DATABASE = "customer_sites"
OWNER_ROLE = "sitelog_owner"
APP_ROLE = "app_user"
READ_ROLE = "readonly_user"


class BrokerState(BaseModel):
    """One broker's identity and ports; both stay the same for its life."""

    model_config = ConfigDict(extra="forbid")

    node_id: int
    port: int
    controller_port: int


class StackState(BaseModel):
    """The content of `state.json`, which only its owner may read: it holds the passwords."""

    model_config = ConfigDict(extra="forbid")

    format: int = 1
    cluster_id: str
    brokers: list[BrokerState]
    postgres_port: int
    postgres_bin: Path | None = None
    superuser_password: SecretStr
    owner_password: SecretStr
    app_password: SecretStr
    read_password: SecretStr
    worker_ports: list[int] = []

    @field_serializer("superuser_password", "owner_password", "app_password", "read_password", when_used="json")
    def _reveal(self, value: SecretStr) -> str:
        return value.get_secret_value()

    @property
    def bootstrap_servers(self) -> list[str]:
        """Every broker as `host:port`."""
        return [f"127.0.0.1:{broker.port}" for broker in self.brokers]

    def ports(self) -> set[int]:
        """Return every port that is promised to a service of this stack."""
        broker_ports = {port for broker in self.brokers for port in (broker.port, broker.controller_port)}
        return {*broker_ports, self.postgres_port, *self.worker_ports}


def new_state(*, brokers: int, kafka_port: int = 0, postgres_port: int = 0) -> StackState:
    """Return a fresh stack's state: given ports (broker n listens on `kafka_port + n - 1`), or free ones for 0.

    Raises ConfigError if Postgres's is a broker's too.
    """
    broker_ports = range(kafka_port, kafka_port + brokers) if kafka_port else range(0)
    if postgres_port in broker_ports:
        raise ConfigError(
            f"expected a Postgres port outside {broker_ports[0]} to {broker_ports[-1]}, the brokers' by --kafka-port, "
            f"found --postgres-port {postgres_port}"
        )
    taken = {*broker_ports, postgres_port}

    def choose(given: int) -> int:
        port = given or free_port(besides=taken)
        taken.add(port)
        return port

    return StackState(
        cluster_id=_cluster_id(),
        brokers=[
            BrokerState(
                node_id=index + 1,
                port=choose(kafka_port and kafka_port + index),
                controller_port=choose(0),
            )
            for index in range(brokers)
        ],
        postgres_port=choose(postgres_port),
        superuser_password=_password(),
        owner_password=_password(),
        app_password=_password(),
        read_password=_password(),
    )


def read_state(folder: Path) -> StackState | None:
    """Return what `folder` remembers, None if no stack was ever there.

    Raises ConfigError if the file is another version's or damaged, or can't be read.
    """
    path = folder / "state.json"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:  # another user's folder, or no folder
        raise ConfigError(f"{path}: {error.strerror}. Name another folder with --dir") from error
    try:
        state = StackState.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(
            f"{path} isn't a state file of this version ({error.error_count()} problems). "
            "Run `sitelog up --reset` for a fresh stack, or name another folder with --dir"
        ) from None
    return state


def write_state(folder: Path, state: StackState) -> None:
    """Replace the state file in one step, readable by its owner alone."""
    write_private(folder / "state.json", state.model_dump_json(indent=2) + "\n")


def write_private(path: Path, text: str) -> None:
    """Write `text` so that a reader sees the old or the new file whole, and others than its owner see nothing."""
    scratch = path.with_name(path.name + ".new")
    scratch.touch(mode=0o600)
    scratch.chmod(0o600)
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def _cluster_id() -> str:
    """Return a random uuid in Kafka's own form, which never begins with a dash: its tools take that for an option."""
    while True:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not cluster_id.startswith("-"):
            return cluster_id


def _password() -> SecretStr:
    """Return 192 random bits in letters that need quoting neither in YAML, nor in a shell, nor in a URL."""
    return SecretStr(secrets.token_hex(24))
