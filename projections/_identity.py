"""Which database this is, told from every other one: a copy is another, a standby that took over is the same."""

from typing import Any, Final

IDENTITY: Final = "SELECT format('%s@%s', current_database(), system_identifier) FROM pg_control_system()"


async def identity(connection: Any) -> str:
    """Return `name@system identifier`; Postgres gives every cluster that initdb made a number of its own."""
    found: str = await connection.fetchval(IDENTITY)
    return found
