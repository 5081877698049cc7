"""A run and a fork of it that goes on in the same program, each with a server.

usage: forked_together.py TOP

Writes whose directory the processes of each run's last turn work in, and whether all are imaged.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import crabrt
from crabrt.core.ids import ObjectId
from crabrt.journal import RunIndex
from crabrt.process.state import read_state
from crabrt.store import Store

SERVER = (
    "import socket, time; s = socket.create_server(('127.0.0.1', 0)); open('ready', 'w').close(); "
    "time.sleep(1000)"
)

top = Path(sys.argv[1])
waiting, go_on = threading.Event(), threading.Event()
is_fork = threading.local()


@crabrt.tool
def start() -> None:
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    child = subprocess.Popen(
        [sys.executable, "-c", SERVER], start_new_session=True, cwd=top / "ws", **quiet
    )
    child.returncode = 0  # nobody waits for it
    short = subprocess.Popen(["sleep", "1000"], start_new_session=True, cwd=top / "ws", **quiet)
    short.returncode = 0
    (top / "short").write_text(str(short.pid))
    end = time.monotonic() + 20
    while not (top / "ws" / "ready").exists():
        assert time.monotonic() < end
        time.sleep(0.01)


@crabrt.tool
def look() -> str:
    return "seen"


@crabrt.model
def think(turn: int) -> int:
    if turn == 2 and not getattr(is_fork, "yes", False):
        waiting.set()
        assert go_on.wait(90)
    return turn


@crabrt.agent(workspace=top / "ws", name="twice")
def loop() -> None:
    think(0)
    start()
    for turn in (1, 2, 3):
        think(turn)
        look()


def index() -> RunIndex:
    made = RunIndex.open(Path(os.environ["CRAB_HOME"]))
    made.refresh()
    return made


def directories(run: str) -> list[tuple[int, bool]]:
    with index() as runs:
        turn = runs.turns(run)[-1]
    state = read_state(ObjectId(turn.processes), Store.open(Path(os.environ["CRAB_HOME"])))
    return [
        (os.stat(f"/proc/{one.pid}/cwd").st_ino, tree.imaged)
        for tree in state.trees
        for one in tree.processes
        if b"create_server" in b"".join(one.command)
    ]


original = threading.Thread(target=loop)
original.start()
assert waiting.wait(60)
with index() as runs:
    parent = runs.find("last").run
subprocess.run(
    [sys.executable, "-m", "crabrt", "fork", f"{parent}@1", "--to", str(top / "fork")],
    check=True, stdout=subprocess.DEVNULL,
)  # fmt: skip
with index() as runs:
    (fork,) = [one.run for one in runs.runs() if one.parent == parent]
is_fork.yes = True
loop.resume(fork)
# Somebody of the original's ends while the fork's are new here, and the fork's run is over: that
# makes them no orphans of his.
os.kill(int((top / "short").read_text()), signal.SIGKILL)
go_on.set()
original.join(60)
where = {(top / name).stat().st_ino: name for name in ("ws", "fork")}
told = {
    name: [(where.get(inode), imaged) for inode, imaged in directories(run)]
    for name, run in (("ws", parent), ("fork", fork))
}
json.dump(told, sys.stdout)
