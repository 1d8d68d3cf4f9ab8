"""The memory that large events take: a backlog of changes whose new name is nearly a megabyte."""

from base64 import b64encode
from dataclasses import dataclass
from typing import Any, Final

from tests.benchmarks.contenders import SITELOG
from tests.benchmarks.events import TOPIC, Life, Site
from tests.benchmarks.load import load_pieces
from tests.benchmarks.race import Run, race
from tests.benchmarks.services import services

NAME_BYTES: Final = 950_000
"""With the rest of the event just below what Kafka's clients send by default."""
SITES: Final = 60
LOADED_AT_ONCE: Final = 50


@dataclass(frozen=True)
class Large:
    """The worker's figures, with events that compress to nothing or hardly."""

    compressible: bool
    events: int
    run: Run


class LargeLife(Life):
    """Gives sites very long names: random, or of one letter, which Kafka's compression makes next to nothing of."""

    def __init__(self, events: int, *, compressible: bool) -> None:
        super().__init__(events, min(SITES, events))
        self._compressible = compressible

    def _says_old(self, _: int) -> bool:
        return False

    def _new_value(self, _: Site) -> tuple[str, Any]:
        if self._compressible:
            return "name", "x" * NAME_BYTES
        return "name", b64encode(self._random.randbytes(NAME_BYTES * 3 // 4)).decode()


async def measure(events: int) -> list[Large]:
    """Let the worker apply so many large events, of either kind. Raises NotCountedError."""
    return [
        Large(compressible, events, await _run(LargeLife(events, compressible=compressible)))
        for compressible in (False, True)
    ]


async def _run(life: Life) -> Run:
    async with services() as ours:
        load_pieces(ours.settings(), TOPIC, life.messages(), LOADED_AT_ONCE)
        return await race(ours, SITELOG, life)
