"""An agent with two servers, which it starts in turns 1 and 2 and asks in turn 3.

usage: twins.py WORKSPACE
"""

import socket
import subprocess
import sys
import time
from pathlib import Path

import crabrt

# That of counting.py, which cannot be imported: it is a program.
SERVER = Path(__file__).with_name("counting.py").read_text().split('"""')[3]

workspace = Path(sys.argv[1])


@crabrt.tool
def start(name: str) -> None:
    here = workspace / name
    here.mkdir()
    subprocess.Popen(
        [sys.executable, "-c", SERVER, str(here)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ).returncode = 0  # nobody waits for it
    end = time.monotonic() + 20
    while not (here / "address").exists():
        assert time.monotonic() < end
        time.sleep(0.005)


@crabrt.tool
def add(name: str, number: int) -> int:
    port = int((workspace / name / "address").read_text().split()[1])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"%d" % number)
        return int(client.recv(100))


@crabrt.model
def think(turn: int) -> int:
    return turn


@crabrt.agent(workspace=workspace, name="twins")
def loop() -> None:
    for turn, name in enumerate("ab"):
        think(turn)
        start(name)
    think(2)
    add("a", 1)
    add("b", 1)
    think(3)


if __name__ == "__main__":
    loop()
