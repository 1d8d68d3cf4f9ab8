"""Reads YAML and remembers where everything stood, so that a wrong value can be named by its line."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]

_BYTES_MAX = 1_048_576
"""Characters of a configuration; a thousand times the usual size is another file."""
_DEPTH_MAX = 32
"""Levels of nesting; an alias inside its own anchor would have no end."""
_TOO_DEEP = f"expected at most {_DEPTH_MAX} levels, got more"
_TEXT_TAG = "tag:yaml.org,2002:str"
_REFERENCE = re.compile(r"\$(?:(?P<escaped>\$\{)|\{(?P<name>[^}]*)(?P<closed>\}?))")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass
class Document:
    """What a file says, and where: lines count from 1."""

    name: str
    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    # What must not be shown, as it came out of the environment: path -> name of the variable.
    substituted: dict[Path, str] = field(default_factory=dict)
    problems: list[tuple[Path, str]] = field(default_factory=list)

    def line(self, path: Path) -> int:
        """Return the line of `path`, or of the nearest thing around it that stands in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_yaml(text: str, name: str, environ: Mapping[str, str]) -> Document:
    """Read one YAML document, with `${NAME}` in its text values replaced from `environ`.

    Only text is replaced, never keys or structure: a variable can't bring a section with it. `$${` stands
    for `${`. What is wrong is in the document's `problems`; nothing is raised.
    """
    document = Document(name)
    if len(text) > _BYTES_MAX:
        document.problems.append(((), f"expected at most {_BYTES_MAX} characters, got {len(text)}"))
        return document
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        document.lines[()] = mark.line + 1 if mark else 1
        reason = getattr(error, "problem", None) or "unreadable characters"
        document.problems.append(((), f"expected YAML, got {reason}"))
        return document
    except RecursionError:
        document.lines[()] = _line_too_deep(text)
        document.problems.append(((), _TOO_DEEP))
        return document
    if root is not None:
        document.data = _Builder(document, environ).build(root, ())
    return document


def _line_too_deep(text: str) -> int:
    """Return the line of the first level too many."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH_MAX and event.start_mark:
            return event.start_mark.line + 1
    return 1


class _Builder:
    """Turns YAML's nodes into values, noting lines and replacing references."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self._scalars = yaml.constructor.SafeConstructor()

    def build(self, node: yaml.Node, path: Path) -> Any:
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if len(path) > _DEPTH_MAX:
            self._document.problems.append((path, _TOO_DEEP))
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if node.tag == _TEXT_TAG:
            return self._text(node.value, path)
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            if key in values:
                first = self._document.lines[(*path, key)]
                self._document.problems.append(
                    ((*path, key), f"expected the key once, got it in line {first} and in line {line}")
                )
                continue
            self._document.lines[(*path, key)] = line
            values[key] = self.build(value_node, (*path, key))
        return values

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, LookupError, AttributeError):
            # A tag such as !!bool before another text: PyYAML looks at what isn't there.
            self._document.problems.append((path, "expected a value that YAML can read, got another one"))
            return None

    def _text(self, text: str, path: Path) -> str:
        def replace(found: re.Match[str]) -> str:
            if found["escaped"]:
                return "${"
            name = found["name"]
            if not found["closed"] or not _VARIABLE.fullmatch(name):
                self._document.problems.append(
                    (path, "expected ${NAME} with letters, digits and _ ($${ for a plain ${), got another form")
                )
                return ""
            if name not in self._environ:
                self._document.problems.append((path, f"expected the environment variable {name}, got none"))
                return ""
            self._document.substituted[path] = name
            return self._environ[name]

        return _REFERENCE.sub(replace, text)
