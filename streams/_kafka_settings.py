"""The configuration's `kafka_config`: where Kafka is, how to get in, and the topics that must be there."""

from collections.abc import Iterable
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from sitelog.schemas import load
from sitelog.streams._section import (
    Addresses,
    Problem,
    Secret,
    Section,
    Text,
    is_loopback,
    raise_if_any,
)

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


class TopicSettings(Section):
    """One topic as it is to be created, and as it must be found."""

    # The unit of parallelism, so never a default: changing it later moves entities between partitions.
    partitions: Annotated[int, Field(ge=1, le=1_000)]
    # Copies; three survive the loss of a broker while another one is being restarted.
    replication_factor: Annotated[int, Field(ge=1, le=9)] = 3
    # Milliseconds; the guide's 7 days is how long a worker may be away. -1 keeps everything; below an hour a
    # restart could lose events; beyond ten years it is -1 that is meant.
    retention_ms: Annotated[int, Field(ge=-1, le=3_650 * _DAY_MS)] = 7 * _DAY_MS
    # The guide's choice: cheap for the producer, and half the bytes.
    compression_type: Literal["snappy", "lz4", "zstd", "gzip", "uncompressed", "producer"] = "snappy"

    @field_validator("retention_ms")
    @classmethod
    def _long_enough(cls, value: int) -> int:
        if -1 < value < _HOUR_MS:
            raise ValueError(f"expected -1 (for ever) or at least {_HOUR_MS} (an hour), got {value}")
        return value


class SchemaRegistrySettings(Section):
    """A Confluent-compatible schema registry; without one the events carry Avro's own fingerprint."""

    # Where it answers, without a user name in it; with a password it is https, unless it is on this machine.
    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")]
    # For HTTP's basic authentication, with a password; none for a registry that asks for nothing.
    username: Text | None = None
    # The user's, as ${NAME}.
    password: Secret | None = None
    # Milliseconds for one request; a schema is asked for once, so waiting longer only hides an outage.
    timeout_ms: Annotated[int, Field(ge=100, le=60_000)] = 5_000

    @field_validator("url")
    @classmethod
    def _has_host(cls, value: str) -> str:
        try:
            address = urlsplit(value)
            valid = bool(address.hostname) and address.port != 0
        except ValueError:  # a port that is no number, a bracket that is open
            valid = False
        if not valid:
            raise ValueError(f"expected http://host:port or https://host:port, got {value}")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        raise_if_any(list(self._credential_problems()))
        return self

    def _credential_problems(self) -> Iterable[Problem]:
        for field, other in (("username", "password"), ("password", "username")):
            if getattr(self, field) is None and getattr(self, other) is not None:
                yield (field,), f"expected a value, as {other} has one, got none"
        address = urlsplit(self.url)
        if self.password is not None and address.scheme != "https" and not is_loopback(address.hostname or ""):
            yield (
                ("url",),
                f"expected https, got http: the password would cross the network to {address.hostname} in clear",
            )


class KafkaSettings(Section):
    """How producers, workers and the command line reach Kafka."""

    # Brokers to begin with, as host:port: two or three, so that one may be away. In a variable with commas.
    bootstrap_servers: Addresses
    # Kafka's own default; anything beyond one machine wants the guide's SASL_SSL.
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    # The guide's; used with the two SASL protocols only.
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    # Who we are; with the two SASL protocols, and only with them.
    sasl_username: Text | None = None
    # The user's, as ${NAME}.
    sasl_password: Secret | None = None
    # A PEM file of the authorities to trust; none means those that the operating system trusts.
    ssl_cafile: Text | None = None
    # By name: every topic that an event's schema names, and any other that a worker is to read.
    topics: Annotated[dict[str, TopicSettings], Field(min_length=1)]
    schema_registry: SchemaRegistrySettings | None = None

    @property
    def uses_sasl(self) -> bool:
        """Whether brokers ask for a user name and a password."""
        return self.security_protocol.startswith("SASL_")

    @property
    def uses_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.security_protocol.endswith("SSL")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        raise_if_any([*self._sasl_problems(), *self._tls_problems(), *self._topic_problems()])
        return self

    def _sasl_problems(self) -> Iterable[Problem]:
        for field in ("sasl_username", "sasl_password"):
            given = getattr(self, field) is not None
            if self.uses_sasl and not given:
                yield (field,), f"expected a value, as security_protocol is {self.security_protocol}, got none"
            if given and not self.uses_sasl:
                yield (
                    (field,),
                    f"expected none, as security_protocol {self.security_protocol} would not use it, got one",
                )
        beyond = [server for server in self.bootstrap_servers if not is_loopback(server.rpartition(":")[0])]
        if self.security_protocol == "SASL_PLAINTEXT" and self.sasl_mechanism == "PLAIN" and beyond:
            yield (
                ("security_protocol",),
                f"expected SASL_SSL, got SASL_PLAINTEXT: the password would cross the network to {beyond[0]} in clear",
            )

    def _tls_problems(self) -> Iterable[Problem]:
        if self.ssl_cafile is not None and not self.uses_tls:
            yield (
                ("ssl_cafile",),
                f"expected none, as security_protocol {self.security_protocol} would not use it, got one",
            )

    def _topic_problems(self) -> Iterable[Problem]:
        """Every event's topic is named by its schema, so a topic left out is an event that can't be sent."""
        for topic in sorted({schema.topic for schema in load()} - self.topics.keys()):
            yield (
                ("topics",),
                f"expected the topic {topic}, which its events are written to, got {', '.join(self.topics)}",
            )
