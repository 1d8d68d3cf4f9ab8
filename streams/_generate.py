"""Writes `events.py` and `_decode.py` from the schema files: `python -m sitelog.streams._generate`."""

from collections.abc import Mapping
from pathlib import Path

from sitelog.schemas import load
from sitelog.streams._generate_decode import decode_module
from sitelog.streams._generate_events import events_module


def generate() -> Mapping[str, str]:
    """Return the text of each generated file, by its name.

    Raises ValueError for a schema that these can't express, naming it.
    """
    schemas = load()
    return {"events.py": events_module(schemas), "_decode.py": decode_module(schemas)}


def main() -> None:
    """Write the files beside this one."""
    for name, text in generate().items():
        Path(__file__).with_name(name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
