"""Whether something has lasted for too long."""

from time import monotonic


class Lasting:
    """What is looked at from time to time, and may hold for `seconds_max` without a break."""

    def __init__(self, seconds_max: float) -> None:
        self._seconds_max = seconds_max
        self._since: float | None = None

    def too_long(self, *, holds: bool) -> bool:
        """Take what it is now, and tell whether it has held for longer than it may."""
        self._since = (self._since or monotonic()) if holds else None
        return self._since is not None and monotonic() - self._since > self._seconds_max
