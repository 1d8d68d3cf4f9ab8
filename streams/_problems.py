"""Says what is wrong with a configuration: where, what was expected, what was found; never a secret."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sitelog.streams._overrides import Overrides
from sitelog.streams._section import InconsistentError, Problem, nearest
from sitelog.streams._yaml import Document, Path

_SHOWN_MAX = 60
"""Characters of a wrong value that are shown."""

_EXPECTED = {
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text (quoted, if it looks like something else)",
    "string_too_short": "text that isn't empty",
    "string_pattern_mismatch": "text like {pattern}",
    "literal_error": "{expected}",
    "list_type": "a list",
    "too_short": "at least {min_length} of them",
    "dict_type": "a section (key: value)",
    "model_type": "a section (key: value)",
}


def report(
    document: Document, overrides: Overrides, invalid: ValidationError | None, root: type[BaseModel]
) -> list[str]:
    """Return a line for each problem, in the order of the file: `file:line: dotted.field: expected …, got …`.

    What a variable brought is reported under the variable's name instead of a line.
    """
    found: list[Problem] = [
        (path, text) for path, text in document.problems if overrides.variable(path, in_file=True) is None
    ]
    known = {path for path, _ in found}
    for error in invalid.errors(include_url=False) if invalid else []:
        explained = [problem for problem in _explain(error, root) if problem[0] not in known]
        found.extend((path, _without_variables(path, text, document, overrides)) for path, text in explained)
    found.sort(key=lambda problem: document.line(problem[0]))
    lines = [f"{_place(path, document, overrides)}: {text}" for path, text in found]
    lines.extend(f"environment variable {name}: {text}" for name, text in overrides.problems)
    return list(dict.fromkeys(lines))


def _place(path: Path, document: Document, overrides: Overrides) -> str:
    dotted = ".".join(str(step) for step in path)
    variable = overrides.variable(path, in_file=path in document.lines)
    place = f"environment variable {variable}" if variable else f"{document.name}:{document.line(path)}"
    return f"{place}: {dotted}" if dotted else place


def _without_variables(path: Path, text: str, document: Document, overrides: Overrides) -> str:
    """Name the variable instead of a value that `${NAME}` brought: any of them may hold a secret."""
    name = next((name for at, name in document.substituted.items() if path[: len(at)] == at), None)
    if name is None or overrides.variable(path, in_file=True):
        return text
    return f"{text.partition(', got ')[0]}, got the value of ${{{name}}}"


def _explain(error: ErrorDetails, root: type[BaseModel]) -> Iterable[Problem]:
    """Turn one of pydantic's errors into ours; values that don't fit together make several."""
    path: Path = tuple(error["loc"])
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, InconsistentError):
        yield from (((*path, *below), text) for below, text in cause.problems)
    elif cause is not None:
        yield path, str(cause)
    elif error["type"] == "extra_forbidden":
        yield path, f"expected a known key, got {path[-1]}{nearest(str(path[-1]), _keys(root, path[:-1]))}"
    elif error["type"] == "missing":
        yield path, "expected a value, got none"
    else:
        expected = _EXPECTED.get(error["type"], "").format_map(error.get("ctx", {})) or error["msg"]
        yield path, f"expected {expected}, got {_shown(error['input'], path, root)}"


def _keys(root: type[BaseModel], path: Path) -> Iterable[str]:
    """Return the keys that the section at `path` knows."""
    properties: Mapping[str, Any] = _Shape(root).at(path).get("properties", {})
    return properties


def _shown(value: Any, path: Path, root: type[BaseModel]) -> str:
    """Show a wrong value, unless it is a secret or could contain one; otherwise say its kind."""
    kinds = {str: "text", dict: "a section", list: "a list", type(None): "nothing"}
    kind = kinds.get(type(value), "a number" if isinstance(value, int | float) else "another kind of value")
    expected = _Shape(root).at(path)
    simple = isinstance(value, str | int | float) and expected.get("type") not in {"object", "array"}
    if not simple or expected.get("format") == "password" or "@" in str(value):
        return kind
    text = repr(value)
    return f"{text[:_SHOWN_MAX]}…" if len(text) > _SHOWN_MAX else text


class _Shape:
    """Finds out what is expected at a path, by the JSON schema that pydantic makes of the models."""

    def __init__(self, root: type[BaseModel]) -> None:
        self._schema = root.model_json_schema()

    def at(self, path: Path) -> Mapping[str, Any]:
        """Return the schema of what belongs at `path`; an empty one where nothing does."""
        node = self._resolve(self._schema)
        for step in path:
            below = node.get("properties", {}).get(step) or node.get("additionalProperties") or node.get("items")
            node = self._resolve(below if isinstance(below, Mapping) else {})
        return node

    def _resolve(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        """Follow a reference, and take the branch of an optional that isn't null."""
        for branch in node.get("anyOf", ()):
            if branch.get("type") != "null":
                return self._resolve(branch)
        if "$ref" in node:
            return self._resolve(self._schema["$defs"][node["$ref"].rpartition("/")[2]])
        return node
