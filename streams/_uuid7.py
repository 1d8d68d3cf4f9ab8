"""Event ids that sort by time: UUID version 7, RFC 9562 section 5.7."""

import secrets
from uuid import UUID

_MILLISECONDS_MAX = 2**48 - 1


def uuid7(unix_milliseconds: int) -> UUID:
    """Return a new UUID of that millisecond since 1970; the other 74 bits are random.

    Two of the same millisecond come in no order. Raises ValueError for a time that 48 bits can't hold.
    """
    if not 0 <= unix_milliseconds <= _MILLISECONDS_MAX:
        raise ValueError(f"expected 0 to {_MILLISECONDS_MAX} milliseconds since 1970, got {unix_milliseconds}")
    random = secrets.randbits(74)
    high, low = random >> 62, random & (2**62 - 1)
    return UUID(int=unix_milliseconds << 80 | 7 << 76 | high << 64 | 0b10 << 62 | low)
