"""Writes docs/settings.md from the configuration's models and the comments above their fields.

`python -m tests.settings_page` does it.
"""

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sitelog.streams.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"

INTRODUCTION = """\
# Settings

<!-- Written by `python -m tests.settings_page` from the models in streams/ and the comments above their fields. -->

All that the configuration may say. [production.example.yaml](../deploy/config/production.example.yaml) is one to copy;
`sitelog config check` names each line that can't be used, values that don't go together too; `sitelog config show`
prints what holds, without the secrets.

A producer needs `kafka_config`, and may have `append` and `tracing`. It leaves other sections unread:
`sitelog config check --producer`.

`${NAME}` in a text takes it from the environment. A variable replaces what the file says: lists are written with
commas, and NAME stands for the name of a topic or an event, with `_` for each `-`:
`SITELOG__KAFKA_CONFIG__TOPICS__TERRITORY_EVENTS__PARTITIONS`.
"""

HEAD = ("setting", "default", "expected", "what it is", "variable")
UNITS = {"seconds": " s", "ms": " ms", "bytes": " bytes"}


def page() -> str:
    """Return the text of the page. Raises KeyError for a setting without a comment."""
    return "\n".join([INTRODUCTION, *list(_section(Settings, ()))[1:], ""])


def _section(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[str]:
    """Yield a section's lines: a table of its settings, then the sections within it."""
    comments, shapes = _comments(model), model.model_json_schema()["properties"]
    rows, inner = [], []
    for name, field in model.model_fields.items():
        key = field.alias or name
        below = next(_models(field.annotation), None)
        if below is None:
            rows.append(_row((*path, key), field, _without_null(shapes[key]), comments[name]))
        else:
            named = _without_null(shapes[key]).get("type") == "object" and "$ref" not in shapes[key]
            steps = (*path, key, "NAME") if named else (*path, key)
            inner += ["", f"{'#' * (len(path) + 2)} {'.'.join(steps)}", "", _about(below, field, comments.get(name))]
            inner += _section(below, steps)
    if rows:
        yield from ("", *(f"| {' | '.join(row)} |" for row in (HEAD, ["---"] * len(HEAD), *rows)))
    yield from inner


def _about(model: type[BaseModel], field: FieldInfo, comment: str | None) -> str:
    optional = not field.is_required() and field.get_default(call_default_factory=True) is None
    return " ".join(filter(None, [" ".join((model.__doc__ or "").split()), comment, "Optional." if optional else None]))


def _row(path: tuple[str, ...], field: FieldInfo, shape: Mapping[str, Any], comment: str) -> list[str]:
    default = "needed" if field.is_required() else "none" if field.default is None else f"`{_plain(field.default)}`"
    # A variable brings a single value or a list, never a section.
    variable = "none" if shape.get("type") == "object" else f"`SITELOG__{'__'.join(path).upper()}`"
    return [f"`{path[-1]}`", default, _expected(path[-1], shape), comment, variable]


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _expected(key: str, shape: Mapping[str, Any]) -> str:
    if "enum" in shape:
        return ", ".join(f"`{value}`" for value in shape["enum"])
    if "minimum" in shape:
        unit = next((unit for word, unit in UNITS.items() if word in key.split("_")), "")
        return f"{shape['minimum']:,} to {shape['maximum']:,}{unit}"
    if shape.get("format") == "password":
        return "text, which nobody is shown"
    kinds = {"string": "text", "array": "a list", "object": "a section", "boolean": "true or false"}
    return kinds[shape["type"]] + (f" like `{shape['pattern']}`" if "pattern" in shape else "")


def _without_null(shape: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((branch for branch in shape.get("anyOf", ()) if branch.get("type") != "null"), shape)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that a field's value is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _comments(model: type[BaseModel]) -> Mapping[str, str]:
    """Return the comment above each field, a base class's where a model has none of its own."""
    comments: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if issubclass(kind, BaseModel) and kind is not BaseModel:
            comments |= _own_comments(kind)
    return comments


def _own_comments(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    source = textwrap.dedent(inspect.getsource(model))
    lines = [line.strip() for line in source.splitlines()]
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above = list(takewhile(lambda line: line.startswith("#"), reversed(lines[: node.lineno - 1])))
            if above:
                yield node.target.id, " ".join(line.removeprefix("#").strip() for line in reversed(above))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
