"""An agent whose tool leaves something odd behind; run as a program.

usage: odd.py WORKSPACE pipe|forks|joined|zombie|gone|big|uring|socket|another|fuse|tun

`socket` connects to the one that ODD_SOCKET names.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import crabrt

workspace, what = Path(sys.argv[1]), sys.argv[2]
COMMANDS = {
    "forks": "while :; do /bin/true; done",
    "joined": "(while sleep 0.1; do echo x; done) | cat > '{ws}/joined' & wait",
    "zombie": "/bin/true & exec sleep 1000",
    "gone": "sleep 0.2",
}
BIG = (
    "import sys, time; kept = bytearray(300 << 20)\n"
    "for at in range(0, len(kept), 4096): kept[at] = at >> 12 & 255 | 1\n"
    "open(sys.argv[1] + '/ready', 'w').close(); time.sleep(1000)"
)
READY = "import os, sys, time\nopen(sys.argv[1] + '/ready', 'w').close()\ntime.sleep(1000)"
CODES = {
    "big": BIG,
    "uring": "import ctypes\nring = ctypes.CDLL(None).syscall(425, 4, (ctypes.c_char * 120)())\n"
    f"assert ring >= 0\n{READY}",
    "socket": "import os, socket\ns = socket.socket(socket.AF_UNIX)\n"
    f"s.connect(os.environ['ODD_SOCKET'])\n{READY}",
    "another": "import os, sys\nopen(sys.argv[1] + '/ready', 'w').close()\nos.setgroups([])\n"
    "os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
    "import time; time.sleep(1000)",
    "fuse": f"import os\nos.open('/dev/fuse', os.O_RDWR)\n{READY}",
    "tun": f"import os\nos.open('/dev/net/tun', os.O_RDWR)\n{READY}",
}
held: list[subprocess.Popen[bytes]] = []


@crabrt.tool
def leave() -> None:
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    if what == "pipe":
        child = subprocess.Popen(["cat"], **{**quiet, "stdin": subprocess.PIPE})
    elif what in CODES:
        code = [sys.executable, "-c", CODES[what], str(workspace)]
        child = subprocess.Popen(code, **quiet, start_new_session=what != "big")
        while not (workspace / "ready").exists():
            time.sleep(0.01)
    else:
        command = COMMANDS[what].replace("{ws}", str(workspace))
        child = subprocess.Popen(["bash", "-c", command], **quiet, start_new_session=True)
    held.append(child)
    (workspace / "address").write_text(f"{child.pid} 0")


@crabrt.tool
def write(number: int) -> int:
    if what == "pipe" and held:
        held[0].stdin.write(b"x\n")
        held[0].stdin.flush()
    (workspace / "file").write_text(str(number))
    return number


@crabrt.model
def think(turn: int) -> int:
    return turn


@crabrt.agent(workspace=workspace, name="odd")
def loop() -> int:
    think(0)
    leave()
    for turn in range(1, 4):
        think(turn)
        write(turn)
    return len(held)


if __name__ == "__main__":
    sys.stdout.write(f"{loop()}\n")
    sys.stdout.flush()
    os._exit(0)
