"""Agents with a server or a shell that go back in their own history, alone and inside one another.

usage: rolling.py WORKSPACE shell|nested|opened [DIE_AT]

Dies by SIGKILL in its model call of that number, with everything that it started.
"""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import crabrt
from crabrt.process import table

# That of counting.py, which cannot be imported: it is a program.
SERVER = Path(__file__).with_name("counting.py").read_text().split('"""')[3]

workspace, what = Path(sys.argv[1]), sys.argv[2]
die_at = int(sys.argv[3]) if len(sys.argv) > 3 else None
shell = crabrt.Shell(cwd=workspace)


@crabrt.tool
def start(name: str) -> None:
    (workspace / name).mkdir()
    subprocess.Popen(
        [sys.executable, "-c", SERVER, str(workspace / name)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ).returncode = 0  # nobody waits for it
    end = time.monotonic() + 20
    while not (workspace / name / "address").exists():
        assert time.monotonic() < end
        time.sleep(0.005)


@crabrt.tool
def add(name: str, number: int) -> int:
    port = int((workspace / name / "address").read_text().split()[1])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"%d" % number)
        return int(client.recv(100))


@crabrt.tool
def bash(command: str) -> str:
    return shell.run(command, timeout=20).output


@crabrt.tool
def alive() -> int:
    """How many servers of this workspace live."""
    found = [one for one in table.descendants(os.getpid()) if not one.ended]
    return sum(os.fsencode(workspace) in b" ".join(table.command(one.pid)) for one in found)


@crabrt.model
def think(turn: int) -> int:
    if turn == die_at and "CRAB_RESUME" not in os.environ:
        time.sleep(0.3)  # what came before is durable by then, or not: both must do
        victims = [one.pid for one in table.descendants(os.getpid())]
        everybody = " ".join(map(str, (os.getpid(), *victims)))
        subprocess.Popen(["sh", "-c", f"for pid in {everybody}; do kill -9 $pid; done"])
        time.sleep(60)
    return turn


def with_a_shell() -> list[Any]:
    said = []
    think(0)
    said.append(bash("v=1; cd /usr; f() { echo f$v; }"))
    think(1)
    said.append(bash("v=2; pwd"))
    think(2)
    said.append(bash("v=3; cd /; f"))
    crabrt.current_run().rollback(to=2)
    think(3)
    said.append(bash("echo $v; pwd; f"))
    think(4)
    said.append(bash("v=9; f"))
    crabrt.current_run().rollback(to=1)
    think(5)
    said.append(bash("echo $v; pwd; f"))
    return said


@crabrt.agent(workspace=workspace, name="inner")
def inner(number: int) -> list[int]:
    think(100)
    start("inner")
    think(101)
    said = [add("inner", number)]
    think(102)
    return [*said, add("inner", number)]


def nested() -> list[Any]:
    said: list[Any] = []
    think(0)
    start("outer")
    think(1)
    said.append(add("outer", 1))
    think(2)
    said.append(inner(5))
    think(3)
    said += [add("outer", 10), add("inner", 100), alive()]
    crabrt.current_run().rollback(to=2)
    think(4)
    return [*said, add("outer", 1000), (workspace / "inner").exists(), alive()]


def opened() -> list[Any]:
    with crabrt.open_run(workspace=workspace, name="opened") as run:
        think(0)
        start("one")
        think(1)
        said = [add("one", 1)]
        think(2)
        said.append(add("one", 10))
        run.rollback(to=2)
        think(3)
        return [*said, add("one", 100), alive()]


if __name__ == "__main__":
    loops = {"shell": with_a_shell, "nested": nested}
    if what == "opened":
        sys.stdout.write(f"{opened()}\n")
    else:
        sys.stdout.write(f"{crabrt.agent(workspace=workspace, name='rolling')(loops[what])()}\n")
