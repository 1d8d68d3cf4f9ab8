"""Ends the services of a test session when the session is over, however it ended.

It waits for its standard input to close: the session holds the other end, and the kernel closes it even
for a session that is killed with -9. Then it kills what runs in the folder or in one in it, and removes the folder
with what is mounted in it.
"""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

from sitelog.deploy._daemon import started_daemons, stop_together


def main(folder: Path) -> None:
    sys.stdin.read()
    stacks = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    stop_together([daemon for stack in stacks for daemon in started_daemons(stack)], [(signal.SIGKILL, 10)])
    unmount(folder)
    shutil.rmtree(folder, ignore_errors=True)


def unmount(folder: Path) -> None:
    mounts = Path("/proc/mounts")
    lines = mounts.read_text(encoding="utf-8").splitlines() if mounts.exists() else []
    points = [Path(line.split()[1]) for line in lines]
    for point in points:
        if point.is_relative_to(folder):
            subprocess.run(["umount", "--lazy", str(point)], check=False, timeout=20)


if __name__ == "__main__":
    # A Ctrl-C is for the session; this process has to outlive it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main(Path(sys.argv[1]))
