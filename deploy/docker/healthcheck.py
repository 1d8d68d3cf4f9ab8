# ruff: noqa: INP001 - a program of the image, in no package
"""Exits with 0 if the worker in this container is live, with 1 if not: the image's HEALTHCHECK."""

import os
import sys
import urllib.error
import urllib.request

_SECONDS_MAX = 3


def main() -> int:
    """Ask the worker's own /livez, past any proxy that the environment names."""
    port = os.environ.get("SITELOG__WORKER__WEB_PORT", "8080")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/livez", timeout=_SECONDS_MAX):
            return 0
    except (urllib.error.URLError, OSError) as error:
        sys.stderr.write(f"not live: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
