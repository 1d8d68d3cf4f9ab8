"""Puts `SITELOG__SECTION__FIELD=value` over what the file says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sitelog.streams._yaml import Path

_PREFIX = "SITELOG__"


@dataclass
class Overrides:
    """What the environment replaced: path -> name of the variable; and what it couldn't, by name."""

    variables: dict[Path, str] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def variable(self, path: Path, *, in_file: bool) -> str | None:
        """Return the variable that brought `path`: with all it contains, or as the only thing in it."""
        for replaced, name in self.variables.items():
            if path[: len(replaced)] == replaced or (not in_file and path and replaced[: len(path)] == path):
                return name
        return None


def override(data: dict[str, Any], environ: Mapping[str, str]) -> Overrides:
    """Replace values in `data` by those of the environment, in the order of the variables' names.

    A double underscore goes one level down; capitals don't count, and an underscore finds a hyphen too
    (`SITELOG__KAFKA_CONFIG__TOPICS__TERRITORY_EVENTS__PARTITIONS`). Sections that the file leaves out are
    made; whether such a section exists is for the models to say.
    """
    overrides = Overrides()
    for name in sorted(environ):
        if not name.startswith(_PREFIX):
            continue
        steps = name.removeprefix(_PREFIX).split("__")
        if not all(steps):
            overrides.problems.append((name, "expected SITELOG__SECTION__FIELD, got an empty step"))
            continue
        path = _replace(data, steps, environ[name])
        if path is None:
            overrides.problems.append((name, "expected a field of a section, got something below a single value"))
        else:
            overrides.variables[path] = name
    return overrides


def _replace(data: dict[str, Any], steps: list[str], value: str) -> Path | None:
    """Set one value and return its path, or None when the way there leads through a value."""
    section: Any = data
    path: list[str] = []
    for step in steps[:-1]:
        path.append(_key_for(step, section))
        if section.get(path[-1]) is None:
            section[path[-1]] = {}
        section = section[path[-1]]
        if not isinstance(section, dict):
            return None
    path.append(_key_for(steps[-1], section))
    section[path[-1]] = value
    return tuple(path)


def _key_for(step: str, section: Mapping[str, Any]) -> str:
    """Find the key that a variable's step means; a new one is in small letters."""
    wanted = step.lower()
    return next((key for key in section if key.lower().replace("-", "_") == wanted), wanted)
