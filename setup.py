"""Compiles what runs for every event; all else is in pyproject.toml.

The modules stay plain Python: with SITELOG_COMPILE=0 they are installed as they are, and do the same slower.
"""

import os
import sys
from pathlib import Path

from mypyc.build import mypycify
from setuptools import Extension, setup

PACKAGES = ("schemas", "streams", "projections", "agents", "deploy", "cli")

COMPILED = (
    "streams/_wire.py",
    "streams/_wire_rules.py",
    "streams/_decode.py",
    "streams/codec.py",
    "projections/_items.py",
    "projections/_json.py",
    "projections/_binary.py",
    "projections/_packed.py",
    "projections/_stored.py",
    "projections/_merge.py",
    "projections/_fold.py",
    "projections/_intake.py",
    "projections/_log_rows.py",
    "projections/_model_rows.py",
)

DESCRIBING = {"egg_info", "dist_info"}


def installed_layout() -> Path:
    """Link the packages as they are imported, because that is how the compiler names them."""
    layout = Path("build/layout")
    (layout / "sitelog").mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        link = layout / "sitelog" / package
        if not link.is_symlink():
            link.symlink_to(Path("../../..") / package, target_is_directory=True)
    return layout


def extensions() -> list[Extension]:
    """Return the compiled modules; SITELOG_COMPILE=0 asks for none."""
    # pip asks for a description twice before it builds; what is translated for that is thrown away.
    if os.environ.get("SITELOG_COMPILE") == "0" or not DESCRIBING.isdisjoint(sys.argv):
        return []
    layout = installed_layout()
    os.environ["MYPYPATH"] = str(layout)
    return mypycify(
        [
            # Nothing but our own types, so that the code is the same whatever else is installed.
            "--config-file=",
            "--follow-imports=silent",
            "--no-site-packages",
            "--ignore-missing-imports",
            "--namespace-packages",
            "--explicit-package-bases",
            *(str(layout / "sitelog" / module) for module in COMPILED),
        ],
        opt_level="2",
        group_name="sitelog",
    )


setup(ext_modules=extensions())
