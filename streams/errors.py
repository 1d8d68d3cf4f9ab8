"""Everything that can go wrong, in three kinds: try again, put this event aside, stop the worker."""


class SitelogError(Exception):
    """Sitelog failed."""

    def __init__(self, message: str | None = None) -> None:
        """Take the class's own sentence where no message is given."""
        super().__init__(message or self.__doc__)


class ConfigError(SitelogError):
    """The configuration can't be used."""


class UnavailableError(SitelogError):
    """Kafka, Postgres or another service that is needed can't be reached."""


class Retry(SitelogError):  # noqa: N818 - the name is the outcome, as design section 5 calls it
    """The same again, later: the world is expected to heal by itself."""


class SchemasAway(Retry):
    """The schema registry doesn't answer, and nothing can be read without these schemas."""

    def __init__(self, message: str, schema_ids: frozenset[int]) -> None:
        """Take what the registry said, and the ids that it has to be asked for."""
        super().__init__(message)
        self.schema_ids = schema_ids


class Park(SitelogError):  # noqa: N818
    """This event can't be applied: keep it with its reason, stop its entity, and go on with the others."""

    def __init__(self, reason: str, message: str) -> None:
        """Take `reason`, a short stable code such as `wrong_bytes`, and a message for a person."""
        super().__init__(message)
        self.reason = reason


class Halt(SitelogError):  # noqa: N818
    """Nothing more can be done safely: the process ends with `exit_code`."""

    def __init__(self, message: str, exit_code: int = 70) -> None:
        """Take what was expected, what was found and what to do; the codes are in docs/operations.md."""
        super().__init__(message)
        self.exit_code = exit_code


def reason_of(error: BaseException) -> str:
    """Return what an error says, or its name where it says nothing, as one for a timeout does."""
    return str(error) or type(error).__name__
