"""An agent whose tools start a server that counts in memory; run as a program, killed by tests.

usage: counting.py WORKSPACE TURNS [DIE_AT [HOW [ends]]]

With ``ends`` its last turn ends the server, and it tells which of its children nobody collected.
Dies in the model call of turn DIE_AT, with SIGKILL: alone (``loop``), or with the server (``all``).
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import crabrt
from crabrt.process import table

SERVER = """
import os, socket, sys
here = sys.argv[1]
server = socket.create_server(("127.0.0.1", 0))
with open(here + "/address.new", "w") as file:
    file.write(f"{os.getpid()} {server.getsockname()[1]}")
os.rename(here + "/address.new", here + "/address")
log = open(os.environ["LOG"], "w") if "LOG" in os.environ else None
kept = open(os.environ["KEPT"], "r+") if "KEPT" in os.environ else None
if "LOCKED" in os.environ:
    import fcntl, mmap
    locked = open(os.environ["LOCKED"], "r+b")
    mapped = mmap.mmap(locked.fileno(), 0)
    fcntl.lockf(locked, fcntl.LOCK_EX)
count = 0
while True:
    client, _ = server.accept()
    with client:
        count += int(client.recv(100) or b"0")
        if log:
            print(count, file=log, flush=True)
        if kept:
            kept.seek(0)
            kept.write(f"{count:08}")
            kept.flush()
        client.sendall(b"%d" % count)
"""

workspace, turns = Path(sys.argv[1]), int(sys.argv[2])
die_at = int(sys.argv[3]) if len(sys.argv) > 3 else None
how = sys.argv[4] if len(sys.argv) > 4 else "loop"
ends = len(sys.argv) > 5


def address() -> tuple[int, int]:
    pid, port = (workspace / "address").read_text().split()
    return int(pid), int(port)


@crabrt.tool
def start() -> None:
    with open(os.environ.get("STDIN", os.devnull)) as stdin:
        subprocess.Popen(
            [sys.executable, "-c", SERVER, str(workspace)],
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={} if "EMPTIED" in os.environ else None,
        ).returncode = 0  # nobody waits for it
    end = time.monotonic() + 20
    while not (workspace / "address").exists():
        assert time.monotonic() < end
        time.sleep(0.005)


@crabrt.tool
def add(number: int) -> int:
    with socket.create_connection(("127.0.0.1", address()[1]), timeout=20) as client:
        client.sendall(b"%d" % number)
        return int(client.recv(100))


@crabrt.tool
def end() -> None:
    os.kill(address()[0], signal.SIGKILL)


@crabrt.tool
def write(name: str, text: str) -> None:
    (workspace / name).write_text(text)


@crabrt.model
def think(turn: int) -> int:
    if turn == die_at and "CRAB_RESUME" not in os.environ:
        time.sleep(0.3)  # what came before is durable by then, or not: both must do
        # The loop first: no capture shall see the server gone.
        victims = f"{os.getpid()}" + (f" {address()[0]}" if how == "all" else "")
        subprocess.Popen(["sh", "-c", f"for pid in {victims}; do kill -9 $pid; done"])
        time.sleep(60)
    return turn


@crabrt.agent(workspace=workspace, name="counting")
def loop() -> list[int]:
    counts = []
    for turn in range(turns):
        think(turn)
        if turn == 0:
            start()
        elif ends and turn == turns - 1:
            end()
        elif turn % 2:
            counts.append(add(turn))
        else:
            write("log", f"{counts}\n")
    return counts


if __name__ == "__main__":
    sys.stdout.write(f"{loop()}\n")
    if ends:
        left = [one.pid for one in table.descendants(os.getpid()) if one.ended]
        sys.stdout.write(f"{left}\n")
