"""Ends the services of a test session when the session is over, however it ended.

It waits for its standard input to close: the session holds the other end, and the kernel closes it even
for a session that is killed with -9. Then it kills what runs in the folder and removes the folder.
"""

import shutil
import signal
import sys
from pathlib import Path

from sitelog.deploy._daemon import started_daemons, stop_together


def main(folder: Path) -> None:
    sys.stdin.read()
    stop_together(started_daemons(folder), [(signal.SIGKILL, 10)])
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    # A Ctrl-C is for the session; this process has to outlive it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main(Path(sys.argv[1]))
