"""An agent whose tool leaves a process behind that takes more room than its memory says.

usage: hoarding.py WORKSPACE MEMORY_MIB DELETED_MIB [SHM_MIB]

The process has so much noise in memory, and so much in a file that is open and deleted. Where
SHM_MIB is given, all that takes place where there is no more than that in /dev/shm.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import crabrt

workspace, sizes = Path(sys.argv[1]), sys.argv[2:4]
HOARDER = """
import os, sys, tempfile, time
kept = os.urandom(int(sys.argv[2]) << 20)
file = tempfile.TemporaryFile()
file.write(os.urandom(int(sys.argv[3]) << 20)); file.flush()
open(sys.argv[1] + "/ready", "w").close()
time.sleep(1000)
"""


@crabrt.tool
def leave() -> int:
    child = subprocess.Popen(
        [sys.executable, "-c", HOARDER, str(workspace), *sizes],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    child.returncode = 0  # nobody waits for it
    while not (workspace / "ready").exists():
        time.sleep(0.01)
    return child.pid


@crabrt.tool
def write(number: int) -> None:
    (workspace / "file").write_text(str(number))


@crabrt.model
def think(turn: int) -> int:
    return turn


@crabrt.agent(workspace=workspace, name="hoarding")
def loop() -> int:
    think(0)
    pid = leave()
    for turn in range(1, 5):
        think(turn)
        write(turn)
    return pid


if __name__ == "__main__":
    if len(sys.argv) > 4:
        mount = f"mount -t tmpfs -o size={sys.argv[4]}m tmpfs /dev/shm"
        again = [sys.executable, *sys.argv[:4]]
        os.execvp("unshare", ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", *again])
    sys.stdout.write(f"{loop()}\n")
