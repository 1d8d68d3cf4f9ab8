"""A port for those who must find nobody."""

from typing import Final

CLOSED_PORT: Final = 1
"""Of tcpmux, which nobody runs: a port that is free now may be another test's server a moment later."""
