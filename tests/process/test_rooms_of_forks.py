"""Namespaces in which images of plain processes come back, one tree after the other."""

from __future__ import annotations

import pytest

from crabrt.process import table
from crabrt.process.beside.network import Network
from crabrt.process.beside.room import Room
from crabrt.process.criu import NotRevived, dump
from crabrt.process.criu.mounts import Bind

pytestmark = pytest.mark.root

SLEEPER = "import signal; ready(); signal.pause()"

BUSY = """
    import sys, time
    ready()
    while True:
        if os.fork() == 0:
            time.sleep(0.5)
            os._exit(0)
        time.sleep(0.005)
        while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            print(*ended, file=open(sys.argv[1], "a"))
"""


@pytest.fixture
def room(trees, tmp_path):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
    made = Room(Network(), [Bind(bytes(tmp_path / "new"), bytes(tmp_path / "old"))])
    yield made
    made.end()


def test_a_tree_that_does_not_come_back_takes_nobody_of_another_with_it(
    criu, trees, room, tmp_path, until
):
    told = tmp_path / "told"
    busy, sleeper = trees.start(BUSY, told), trees.start(SLEEPER)
    for child in (busy, sleeper):
        dump(criu, child.pid, tmp_path / str(child.pid), leave="stopped")
        trees.end(child.pid)
    (tmp_path / str(sleeper.pid) / f"core-{sleeper.pid}.img").unlink()
    there = room.restore(criu, tmp_path / str(busy.pid), [str(told)])
    before = set(table.children(there))
    with pytest.raises(NotRevived):
        room.restore(criu, tmp_path / str(sleeper.pid))
    assert [one.pid for one in room.everybody()[1:] if one.parent == room.keeper.pid] == [there]
    until(lambda: before.isdisjoint(table.children(there)))
    lines = told.read_text().splitlines()
    assert {line.split()[1] for line in lines} == {"0"}
