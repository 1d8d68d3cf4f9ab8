"""Which embedded stack a command is about."""

from pathlib import Path
from typing import Annotated

import typer

DIR_VARIABLE = "SITELOG_DIR"

DirOption = Annotated[
    Path,
    typer.Option(
        "--dir",
        envvar=DIR_VARIABLE,
        show_envvar=True,
        resolve_path=True,
        help="The folder of the stack's data, logs and configuration.",
    ),
]
DEFAULT_DIR = Path(".sitelog")
