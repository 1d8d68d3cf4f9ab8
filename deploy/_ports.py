"""Ports on the loopback interface that stay ours across restarts."""

import random
import socket

from sitelog.streams.errors import UnavailableError

LOOPBACK = "127.0.0.1"
# Below Linux's range for outgoing connections (32768 up): while a broker is down, no client's own connection, and
# not even its attempt to reach that very port, can come to hold the port.
_FIRST, _LAST = 20_000, 32_000
_ATTEMPTS_MAX = 200


def is_free(port: int) -> bool:
    """Return whether a server could listen on `port` now, connections still closing there notwithstanding."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_port(*, besides: set[int]) -> int:
    """Return a port that is free now and not in `besides`, those already promised to others."""
    candidates = [port for port in range(_FIRST, _LAST) if port not in besides]
    for port in random.sample(candidates, min(_ATTEMPTS_MAX, len(candidates))):
        if is_free(port):
            return port
    raise UnavailableError(f"no free port between {_FIRST} and {_LAST}, of {_ATTEMPTS_MAX} tried")


def require_free(port: int, service: str, option: str) -> None:
    """Raise UnavailableError if `port` is taken, saying for which service and which option chooses another."""
    if not is_free(port):
        raise UnavailableError(
            f"{service} can't listen on {LOOPBACK}:{port}: the port is in use by another process. "
            f"End that one (`ss -ltnp 'sport = :{port}'` names it), or choose another port with {option}"
        )
