"""Every read model, and one from the documentation: a file that nobody has registered anywhere."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from sitelog.projections._projection import Projection
from sitelog.projections._registry import load, plan
from tests.oracle import TABLES

EXAMPLE = Path(__file__).parents[1] / "docs/examples/open_sites.py"


def imported(path: Path) -> ModuleType:
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LOADED = plan(load())
"""Those that workers run."""
OURS = plan(projection for projection in LOADED.projections if projection.name in TABLES)
"""Those that the oracle knows: what tests say in so many words is of them."""
OPEN_SITES: Projection[Any] = imported(EXAMPLE).open_sites
EVERY = plan([*(one for one in LOADED.projections if one.name != OPEN_SITES.name), OPEN_SITES])
"""Those, and the documentation's own example unless somebody has copied it to the others."""
