"""The command line in this process: what a person would see, without waiting for another interpreter."""

import asyncio
import json
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from sitelog.cli._run import exit_code_of
from sitelog.cli.main import app


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
