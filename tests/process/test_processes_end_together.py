"""Whoever ends processes comes back when their numbers are free, whatever keeps them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess

import pytest

from crabrt.process import parking, table

SLEEPER = "import signal; ready(); signal.pause()"
FAMILY = """
    import os, signal, sys
    for _ in range(int(sys.argv[1])):
        if not os.fork():
            signal.pause()
    ready()
    signal.pause()
"""


def identities(*pids):
    return [table.look(pid).identity for pid in pids]


def started_inside(first, *command):
    """Our own child, in the PID namespace of another process."""
    enter = ctypes.CDLL(None, use_errno=True).setns
    with open(f"/proc/{first}/ns/pid") as theirs, open("/proc/self/ns/pid") as own:
        assert enter(theirs.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
        try:
            return subprocess.Popen(command)
        finally:
            assert enter(own.fileno(), 0) == 0


@pytest.mark.root
def test_a_pid_namespace_ends_as_a_whole(trees):
    first = trees.inside(FAMILY, 5)
    everybody = [first, *(one.pid for one in table.descendants(first))]
    assert len(everybody) == 6
    assert table.inner_number(first) == 1
    outside = table.look(first).parent
    parking.kill([*identities(*everybody), *identities(outside)])
    assert [pid for pid in (*everybody, outside) if table.look(pid) is not None] == []


@pytest.mark.root
@pytest.mark.parametrize("waited", [256, 1, 0])
def test_our_child_inside_of_a_pid_namespace_does_not_hold_its_end_up(trees, monkeypatch, waited):
    """Its first process does not end before our child is collected, which only we can do."""
    monkeypatch.setattr(parking, "_WAITED_MOST", waited)
    first = trees.inside(SLEEPER)
    ours = started_inside(first, "sleep", "1000")
    assert table.inner_number(ours.pid) != ours.pid
    assert table.look(ours.pid).parent == os.getpid()
    ours.returncode = -signal.SIGKILL  # collected by whom it is ended by
    parking.kill(identities(first, ours.pid))
    assert table.look(first) is None or table.look(first).ended
    assert table.look(ours.pid) is None
