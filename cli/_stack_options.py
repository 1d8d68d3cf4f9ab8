"""Which embedded stack a command is about."""

from pathlib import Path
from typing import Annotated

import typer

DirOption = Annotated[
    Path,
    typer.Option(
        "--dir",
        envvar="SITELOG_DIR",
        show_envvar=True,
        resolve_path=True,
        help="The folder of the stack's data, logs and configuration.",
    ),
]
DEFAULT_DIR = Path(".sitelog")
