"""Groups of fanotify cost everybody on the file system: a user's runs share one between stores."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from crabrt.core.entries import Checkpoint

PATIENCE_S = 60

LOOP = """
import sys
import crabrt

@crabrt.model
def think():
    return sys.stdin.readline().strip()

@crabrt.tool
def write(name):
    with open(f"{sys.argv[1]}/{name}", "w") as file:
        file.write("new")

@crabrt.agent(workspace=sys.argv[1], home=sys.argv[2], observer="fanotify")
def loop():
    print("begun", flush=True)
    while name := think():
        write(name)
        print("written", flush=True)

loop()
"""


class Loop:
    def __init__(self, base):
        self.workspace, self.home = base / "ws", base / "home"
        self.workspace.mkdir(parents=True)
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOOP, self.workspace, self.home],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "begun\n"

    def write(self, name):
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "written\n"

    def groups(self):
        fds = f"/proc/{self.process.pid}/fd"
        targets = [os.readlink(f"{fds}/{name}") for name in os.listdir(fds)]
        return sum(target == "anon_inode:[fanotify]" for target in targets)

    def end(self):
        self.process.communicate(timeout=60)
        return self.process.returncode


def points(store, loop):
    found = type(store)(loop.home).bodies(Checkpoint)
    return {point.turn: point.observer.split()[0].strip(",") for point in found}


@pytest.mark.root
def test_two_stores_of_a_user_have_one_group(tmp_path, store):
    first, second = Loop(tmp_path / "1"), Loop(tmp_path / "2")
    assert (first.groups(), second.groups()) == (1, 0)
    second.write("a")
    until = time.monotonic() + PATIENCE_S
    while 1 not in points(store, second):
        assert time.monotonic() < until, "its turn was never captured"
        time.sleep(0.01)
    assert first.end() == 0
    second.write("b")
    second.write("c")
    assert second.groups() == 1
    assert second.end() == 0
    assert points(store, second) == {
        0: "scan",
        1: "fanotify",
        2: "scan",
        3: "fanotify",
        4: "fanotify",
    }
