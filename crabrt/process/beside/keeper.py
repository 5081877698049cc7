"""The first process of a fork's namespaces: it shows them the fork's files, then it only sleeps.

usage: keeper.py READY-TEXT (NEW OLD)...

Run as a program in new PID and mount namespaces: mounts NEW over OLD, pair by pair, says
READY-TEXT, and becomes a ``sleep`` that ignores SIGCHLD: for the kernel, a parent that does wants
none of its children kept as zombies. So the namespace has an init that costs a page of memory, and
that an image can be taken of. Imports nothing of crabrt.
"""

import os
import signal
import subprocess
import sys

SECONDS = str((1 << 31) - 1)
_SLEEP = "/bin/sleep"
SHOWN = "crabrt-fork"
"""What it is called in lists of processes."""


def main() -> None:
    """What the module says."""
    ready, *pairs = sys.argv[1:]
    for new, old in zip(pairs[::2], pairs[1::2], strict=True):
        subprocess.run(["mount", "--bind", new, old], check=True)
    said = os.dup(1)
    os.set_inheritable(said, False)
    null = os.open(os.devnull, os.O_RDWR)  # of this mount namespace: others are in no image
    for fd in range(3):
        os.dup2(null, fd)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd not in (0, 1, 2, said):
            try:
                os.close(fd)
            except OSError:
                continue  # that of the listing
    os.chdir("/")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.write(said, ready.encode())
    # A program that is many in one file goes by this name.
    is_alone = os.path.basename(os.path.realpath(_SLEEP)) == "sleep"
    os.execv(_SLEEP, [SHOWN if is_alone else "sleep", SECONDS])  # noqa: S606  that is the point


if __name__ == "__main__":
    main()
