"""The configuration: one YAML file in the shape of the integration guide, checked before anything starts."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from sitelog.streams._database_settings import (
    DatabaseSettings,
    DatabasesSettings,
    OwnerSettings,
    PoolSettings,
    ReplicaPoolSettings,
    ReplicaSettings,
)
from sitelog.streams._event_schema_settings import EventSchemas, EventSchemaSettings
from sitelog.streams._kafka_settings import KafkaSettings, SchemaRegistrySettings, TopicSettings
from sitelog.streams._overrides import override
from sitelog.streams._problems import report
from sitelog.streams._replay_settings import ReplaySettings
from sitelog.streams._section import Problem, Section, is_loopback, raise_if_any
from sitelog.streams._tracing_settings import TracingSettings
from sitelog.streams._worker_settings import AppendSettings, WorkerSettings
from sitelog.streams._yaml import Document, read_yaml
from sitelog.streams.errors import ConfigError

__all__ = [
    "AppendSettings",
    "DatabaseSettings",
    "DatabasesSettings",
    "EventSchemaSettings",
    "KafkaSettings",
    "OwnerSettings",
    "PoolSettings",
    "ProducerSettings",
    "ReplaySettings",
    "ReplicaPoolSettings",
    "ReplicaSettings",
    "SchemaRegistrySettings",
    "Settings",
    "TopicSettings",
    "TracingSettings",
    "WorkerSettings",
    "is_loopback",
    "load_producer_settings",
    "load_settings",
]


class ProducerSettings(Section):
    """What producers need of the configuration: they never speak to Postgres."""

    kafka_config: KafkaSettings
    append: AppendSettings = AppendSettings()
    tracing: TracingSettings = TracingSettings()


class Settings(ProducerSettings):
    """All of the configuration. Frozen: what a process started with is what it runs with."""

    database_config: DatabasesSettings
    # The guide's, by event. Checked only: what an event is, and its newest version, schemas/avro decides.
    event_schemas: EventSchemas = Field(default_factory=dict)
    worker: WorkerSettings = WorkerSettings()
    replay: ReplaySettings = ReplaySettings()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        raise_if_any(list(self._problems()))
        return self

    def _problems(self) -> Iterable[Problem]:
        largest = self.append.sent_bytes_max
        if self.worker.batch_bytes_max < largest:
            yield (
                ("worker", "batch_bytes_max"),
                (
                    f"expected at least append's event_bytes_max and batch_bytes ({largest}), "
                    f"got {self.worker.batch_bytes_max}"
                ),
            )


def load_settings(path: Path, environ: Mapping[str, str]) -> Settings:
    """Read the configuration at `path`, with `${NAME}` and `SITELOG__…` taken from `environ`.

    A variable `SITELOG__WORKER__WEB_PORT=0` replaces what the file says of `worker.web_port`; lists are
    written with commas. Raises ConfigError with a line for every problem found,
    `file:line: dotted.field: expected …, got …`; no secret, and nothing that came out of a variable, is in it.
    """
    return _load(path, environ, Settings)


def load_producer_settings(path: Path, environ: Mapping[str, str]) -> ProducerSettings:
    """Read what producers need of the configuration at `path`; as `load_settings` otherwise.

    The other sections may be missing, or name variables that are: a producer has no password for Postgres.
    """
    return _load(path, environ, ProducerSettings)


S = TypeVar("S", bound=ProducerSettings)


def _load(path: Path, environ: Mapping[str, str], kind: type[S]) -> S:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected UTF-8 text, got something else") from None
    except OSError as error:
        raise ConfigError(f"{path}: expected a file that can be read, got: {error.strerror}") from None
    document = read_yaml(text, str(path), environ)
    if document.data is None and not document.problems:
        document.data = {}
    if not isinstance(document.data, dict):
        document.problems.append(((), "expected sections such as kafka_config, got something else"))
        document.data = {}
    overrides = override(document.data, environ)
    _leave_out(document, Settings.model_fields.keys() - kind.model_fields.keys())
    try:
        settings, invalid = kind.model_validate(document.data), None
    except ValidationError as error:
        settings, invalid = None, error
    problems = report(document, overrides, invalid, kind)
    if settings is None or problems:
        raise ConfigError("\n".join(problems)) from None
    return settings


def _leave_out(document: Document, sections: Collection[str]) -> None:
    """Drop sections, and what is wrong in them."""
    for section in sections:
        document.data.pop(section, None)
    document.problems = [(path, text) for path, text in document.problems if not path or path[0] not in sections]
