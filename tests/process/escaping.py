"""An agent whose tool leaves a job behind, where orphans do not come to the loop.

usage: escaping.py WORKSPACE HOW

HOW: ``refused``: the kernel refuses to make this process a subreaper; ``taken``: the program takes
the mark away. While the tool runs there is ``running`` in the workspace, and
it goes on when there is ``go``. What is in ``job`` is what it runs in the background.
"""

import ctypes
import platform
import struct
import subprocess
import sys
import time
from pathlib import Path

import crabrt
from crabrt.process import subreaper

PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 22, 36, 38
workspace, how = Path(sys.argv[1]), sys.argv[2]
libc = ctypes.CDLL(None)


def refuse() -> None:
    """prctl(PR_SET_CHILD_SUBREAPER) fails from now on, as under a strict sandbox (seccomp(2))."""
    load, jump_if_equal, give = 0x20, 0x15, 0x06
    prctl = {"x86_64": 157, "aarch64": 167}[platform.machine()]
    steps = [
        (load, 0, 0, 0),
        (jump_if_equal, 0, 3, prctl),
        (load, 0, 0, 16),
        (jump_if_equal, 0, 1, PR_SET_CHILD_SUBREAPER),
        (give, 0, 0, 0x0005_0001),  # SECCOMP_RET_ERRNO, EPERM
        (give, 0, 0, 0x7FFF_0000),  # SECCOMP_RET_ALLOW
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(PR_SET_SECCOMP, 2, ctypes.create_string_buffer(program), 0, 0) == 0
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == -1


@crabrt.tool
def leave() -> None:
    if how == "taken":
        assert libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0
    subprocess.run((workspace / "job").read_text(), shell=True, check=True, cwd=workspace.parent)
    (workspace / "running").touch()
    end = time.monotonic() + 60
    while not (workspace / "go").exists():
        assert time.monotonic() < end
        time.sleep(0.01)


@crabrt.tool
def nothing() -> None:
    pass


@crabrt.model
def think(turn: int) -> int:
    return turn


@crabrt.agent(workspace=workspace, name="escaping", processes="track")
def loop() -> bool:
    think(0)
    leave()
    think(1)
    nothing()
    think(2)
    return subreaper.is_marked()


if __name__ == "__main__":
    if how == "refused":
        refuse()
    sys.stdout.write(f"{loop()}\n")
