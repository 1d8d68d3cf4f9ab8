"""What a worker asks Postgres for, seen from between the two: where a transaction begins, and where it ends."""

import re
from typing import Final, Literal

BEGIN: Final = b"Q\x00\x00\x00\x0bBEGIN;\x00"
COMMIT: Final = b"Q\x00\x00\x00\x0cCOMMIT;\x00"
DONE: Final = b"Z\x00\x00\x00\x05I"
"""What Postgres says when nothing is under way any more."""

# asyncpg prepares a statement under a name, and binds it by that name whenever it is to be executed.
_PREPARED: Final = re.compile(rb"(__asyncpg_stmt_\w+__)\x00\s*WITH held AS")
_BOUND: Final = re.compile(rb"B....[^\x00]*\x00(__asyncpg_stmt_\w+__)\x00", re.DOTALL)


class Requests:
    """Those of one connection."""

    def __init__(self) -> None:
        self._writers: set[bytes] = set()

    def kind(self, data: bytes) -> Literal["begin", "commit", "write"] | None:
        """Tell what a request is for; `write` is the one statement that writes few events, all by itself."""
        if data.startswith(BEGIN):
            return "begin"
        if data.startswith(COMMIT):
            return "commit"
        self._writers.update(_PREPARED.findall(data))
        bound = _BOUND.match(data)
        return "write" if bound is not None and bound[1] in self._writers else None
