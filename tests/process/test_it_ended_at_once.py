"""Of a tree that came back, some may have ended before anybody could look."""

from __future__ import annotations

import os
import subprocess

import pytest

from crabrt.core.processes import LastingProcess, ProcessTree
from crabrt.process import subreaper, table
from crabrt.process.criu import Cause, NotRevived
from crabrt.process.parking import kill
from crabrt.process.reviving import who_is_back


def tree(*pids: int) -> ProcessTree:
    return ProcessTree(tuple(LastingProcess(pid, 1, 0) for pid in pids), imaged=True)


def test_one_that_nobody_is_left_of_is_not_back():
    with subprocess.Popen(["true"]) as child:
        child.wait()
    with pytest.raises(NotRevived, match="it ended at once") as raised:
        who_is_back(tree(child.pid), child.pid)
    assert raised.value.cause is Cause.GONE


def test_one_that_has_ended_leaves_no_zombie(until):
    pid = os.posix_spawnp("true", ["true"], os.environ)
    until(lambda: table.look(pid).ended)
    with pytest.raises(NotRevived, match="it ended at once"):
        who_is_back(tree(pid), pid)
    assert table.look(pid) is None


def test_what_the_topmost_one_left_is_back(until):
    assert subreaper.hold()
    try:
        script = "sleep 1000 > /dev/null & echo $!"
        top = subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE)
        with top:
            child = int(top.stdout.read())
        until(lambda: table.look(child).parent == os.getpid())
        left = table.look(child).identity
        assert who_is_back(tree(top.pid, child), top.pid) == [left]
        kill([left])
    finally:
        subreaper.release()
    assert table.look(child) is None
