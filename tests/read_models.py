"""Every read model, and one from the documentation: a file that nobody has registered anywhere."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from sitelog.projections._projection import Projection
from sitelog.projections._registry import load, plan

EXAMPLE = Path(__file__).parents[1] / "docs/examples/open_sites.py"


def imported(path: Path) -> ModuleType:
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OPEN_SITES: Projection[Any] = imported(EXAMPLE).open_sites
OURS = plan(load())
EVERY = plan([*OURS.projections, OPEN_SITES])
