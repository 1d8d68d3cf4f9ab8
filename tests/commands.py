"""The command line in this process: what a person would see, without waiting for another interpreter."""

import asyncio
import json
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch
from uuid import uuid4

import yaml

from sitelog.cli._run import exit_code_of
from sitelog.cli.main import app
from sitelog.deploy._configuration import configuration
from sitelog.deploy._state import write_private
from tests.conftest import Services


def config_file(services: Services, database: str, **changed: dict[str, Any] | None) -> Path:
    """Write the stack's configuration for a database, parts of `database_config` changed or left out."""
    values = configuration(services.state, database=database)
    databases = values["database_config"]
    for name, change in changed.items():
        if change is None:
            del databases[name]
        else:
            databases[name] |= change
    path = services.folder / f"{uuid4().hex}.yaml"
    write_private(path, yaml.safe_dump(values))
    return path


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


async def sitelog(config: Path, *arguments: str, typed: str = "") -> Ran:
    """Run one command, `typed` on its keyboard; not two at once, as they would share stdout."""
    return await asyncio.to_thread(_run, [*arguments, "--config", str(config)], typed)


def _run(arguments: list[str], typed: str) -> Ran:
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), patch("sys.stdin", StringIO(typed)):
        code = exit_code_of(lambda: app(arguments, standalone_mode=False))
    return Ran(code, out.getvalue(), err.getvalue())
