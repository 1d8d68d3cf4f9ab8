"""What every section of the configuration shares: strict keys, and problems that name their field."""

from collections.abc import Iterable
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)

Problem = tuple[tuple[str | int, ...], str]
"""Where (the path below the section that says so) and what (`expected …, got …`)."""

_PORT_MAX = 65_535


class InconsistentError(ValueError):
    """Values that are fine alone but not together."""

    def __init__(self, problems: list[Problem]) -> None:
        """Keep every problem, so that one run reports them all."""
        super().__init__("; ".join(message for _, message in problems))
        self.problems = problems


def raise_if_any(problems: list[Problem]) -> None:
    """Raise InconsistentError with `problems`, or do nothing when there are none."""
    if problems:
        raise InconsistentError(problems)


class Section(BaseModel):
    """A frozen part of the configuration in which an unknown key is an error."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads `on` and `yes` as true, and pydantic true as 1: only a setting that is true or false means it."""
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            # A TypeError would pass pydantic by; it collects ValueErrors.
            raise ValueError("expected a number or quoted text, got yes or no")
        return value


def nearest(given: str, known: Iterable[str]) -> str:
    """Say which of `known` was probably meant, or list them when none is near."""
    known = list(known)
    near = get_close_matches(given.lower(), known, n=1)
    return f" (did you mean {near[0]}?)" if near else f" (known: {', '.join(known)})"


def is_loopback(host: str) -> bool:
    """Tell whether what is said to `host` stays on this machine: a Unix socket's folder, localhost, 127/8, ::1."""
    if host.startswith("/") or host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_host(value: str) -> bool:
    return bool(value) and "://" not in value and not any(one.isspace() or one in "@,;" for one in value)


def _host(value: str) -> str:
    if not _is_host(value):
        raise ValueError("expected a host name, an IP address or a Unix socket's folder, got something else")
    return value


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    valid_port = port.isascii() and port.isdigit() and 0 < int(port) <= _PORT_MAX
    if not valid_port or not _is_host(host):
        raise ValueError(f"expected host:port with a port from 1 to {_PORT_MAX}, got another form")
    return value


def _not_empty(value: SecretStr) -> SecretStr:
    if not value.get_secret_value():
        raise ValueError("expected text that isn't empty, got ''")
    return value


def _split(value: Any) -> Any:
    """Take `a:1, b:2` for `[a:1, b:2]`: an environment variable holds only text."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


Text = Annotated[str, Field(min_length=1)]
Host = Annotated[Text, AfterValidator(_host)]
Port = Annotated[int, Field(ge=1, le=_PORT_MAX)]
Addresses = Annotated[list[Annotated[str, AfterValidator(_address)]], Field(min_length=1), BeforeValidator(_split)]
Secret = Annotated[SecretStr, AfterValidator(_not_empty)]
