"""Ends the services of a test session when the session is over, however it ended.

It waits for its standard input to close: the session holds the other end, and the kernel closes it even
for a session that is killed with -9. Then it ends what runs in the folder or in one in it, and removes the folder
with what is mounted in it.
"""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

from sitelog.deploy._daemon import started_daemons, stop_together

# Killed at once it would leave its shared memory to the machine. Frozen it hears of nothing.
POSTGRES_STEPS = ((signal.SIGCONT, 0.0), (signal.SIGQUIT, 10.0))


def main(folder: Path) -> None:
    sys.stdin.read()
    stacks = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    daemons = [daemon for stack in stacks for daemon in started_daemons(stack)]
    stop_together([daemon for daemon in daemons if daemon.name == "postgres"], POSTGRES_STEPS)
    stop_together(daemons, [(signal.SIGKILL, 10)])
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
