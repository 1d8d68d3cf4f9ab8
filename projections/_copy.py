"""Rows on their way into COPY."""

from collections.abc import AsyncGenerator, Iterable
from typing import Any, Final

from sitelog.projections._binary import BEGIN, END

PACKED_AT_ONCE: Final = 500
"""Rows packed before others may use the event loop, and Postgres takes them: about 1 ms."""


async def copy(connection: Any, schema: str, table: str, columns: Iterable[str], packed: Iterable[bytes]) -> None:
    """Write rows that are packed bit by bit: Postgres takes what is there while the rest is packed."""
    await connection.copy_to_table(table, schema_name=schema, columns=columns, source=_framed(packed), format="binary")


async def _framed(packed: Iterable[bytes]) -> AsyncGenerator[bytes]:
    yield BEGIN
    for rows in packed:
        yield rows
    yield END
