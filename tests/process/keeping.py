"""An agent that keeps a connection to the server that its tools started; run as a program.

usage: keeping.py WORKSPACE [back]

The server answers one client after the other, each for as long as it stays. With ``back`` the loop
goes back in its own history, with the connection at hand.
"""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import crabrt

SERVER = """
import os, socket, sys
server = socket.create_server(("127.0.0.1", 0))
with open(sys.argv[1] + "/address.new", "w") as file:
    file.write(f"{os.getpid()} {server.getsockname()[1]}")
os.rename(sys.argv[1] + "/address.new", sys.argv[1] + "/address")
log = open(sys.argv[1] + "/log", "w")
count = 0
while True:
    client, _ = server.accept()
    with client:
        while data := client.recv(100):
            count += int(data)
            client.sendall(b"%d" % count)
"""

workspace, goes_back = Path(sys.argv[1]), "back" in sys.argv[2:]
kept: list[socket.socket] = []


@crabrt.tool
def start() -> None:
    subprocess.Popen(
        [sys.executable, "-c", SERVER, str(workspace)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ).returncode = 0  # nobody waits for it
    end = time.monotonic() + 20
    while not (workspace / "address").exists():
        assert time.monotonic() < end
        time.sleep(0.005)


def ask(number: int) -> bytes:
    """The answer; empty if the connection is over."""
    try:
        kept[-1].sendall(b"%d" % number)
        return kept[-1].recv(100)
    except (BrokenPipeError, ConnectionResetError):
        return b""


@crabrt.tool
def add(number: int) -> int:
    if not kept or not (answer := ask(number)):
        port = int((workspace / "address").read_text().split()[1])
        kept.append(socket.create_connection(("127.0.0.1", port), timeout=20))
        answer = ask(number)
    return int(answer)


@crabrt.model
def think(turn: int) -> int:
    return turn


@crabrt.agent(workspace=workspace, name="keeping")
def loop() -> list[int]:
    think(0)
    start()
    think(1)
    said = [add(1)]
    think(2)
    said.append(add(10))
    if goes_back:
        crabrt.current_run().rollback(to=2)
    think(3)
    return [*said, add(100)]


if __name__ == "__main__":
    sys.stdout.write(f"{loop()} {len(kept)}\n")
    if goes_back:
        os.kill(int((workspace / "address").read_text().split()[0]), 9)
