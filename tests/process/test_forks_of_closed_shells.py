"""A fork's shell does not need that of the run it was forked from, nor does that one need it.

With real CRIU: the channels of the original's shell are gone, go, or are in use.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from .forked_runs import ended, succeeded

AGENT = Path(__file__).with_name("closing.py")

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("criu")]


@pytest.fixture(autouse=True)
def ctrl_c():
    """As in a terminal: whoever is started in the background ignores it, and what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


ISOLATIONS = pytest.mark.parametrize("isolation", ["namespace", "session"])


@ISOLATIONS
def test_a_fork_of_a_run_that_has_closed_its_shell_since_has_shell_and_server(
    runtime, original, isolation
):
    run_to_its_end(original, isolation)
    assert not list(runtime.rglob("status"))  # the fault: there were no channels any more
    run, fork = original.fork("last@2")
    done = original.crab("resume", run, "--yes", ISOLATION=isolation)
    assert succeeded(done) == "6 6\n"
    assert "is not back" not in done.stderr
    assert (fork.path / "said").read_text() == "6 6\n"


def test_a_turn_of_such_a_fork_is_restored_when_all_its_channels_are_gone(runtime, original):
    run_to_its_end(original)
    run, fork = original.fork("last@2")
    succeeded(original.crab("resume", run, "--yes"))
    for directory in runtime.glob("main-*"):
        assert not list(directory.iterdir())
        directory.rmdir()  # as gc does
    shown = succeeded(original.crab("restore", f"{run}@3"))
    assert "brought back: " in shown
    assert (fork.path / "said").read_text() == "3 3\n"
    assert len(list(runtime.rglob("status"))) == 1


@ISOLATIONS
def test_a_fork_of_a_live_run_has_a_shell_of_its_own(original, isolation):
    original.begin(4, 3, "wait", program=AGENT, wait_at=3, ISOLATION=isolation)
    run, fork = original.fork("last@2")
    (original.top / "mended").touch()
    done = original.crab("resume", run, "--yes", ISOLATION=isolation)
    assert succeeded(done) == "6 6\n"
    assert (fork.path / "said").read_text() == "6 6\n"
    assert (original.path / "said").read_text() == "3 3\n"


@ISOLATIONS
def test_a_shell_that_is_closed_takes_nothing_from_that_of_a_fork(runtime, original, isolation):
    original.begin(4, 3, "wait", program=AGENT, wait_at=3, ISOLATION=isolation)
    run, fork = original.fork("last@2")
    succeeded(original.crab("restore", f"{run}@-1"))
    (closed, kept) = sorted(runtime.glob("main-*"))
    assert (closed / "status").exists()
    loop = int((original.top / "waiting").read_text())
    original.interrupt()
    assert ended(loop)
    assert not (closed / "status").exists()
    (original.top / "mended").touch()
    done = original.crab("resume", run, "--yes", ISOLATION=isolation)
    assert succeeded(done) == "6 6\n"
    assert "is not back" not in done.stderr
    assert (fork.path / "said").read_text() == "6 6\n"
    assert not (kept / "status").exists()


def run_to_its_end(original, isolation="auto"):
    """Its shell is closed, as it leaves the block that holds it."""
    program = ("env", "-C", original.path, sys.executable, AGENT, 4)
    assert succeeded(original.called(*program, ISOLATION=isolation)) == "6 6\n"


def test_a_fork_whose_shell_is_closed_is_imaged_all_the_same(runtime, original):
    """What was shown to that shell is in the mounts of the server beside it."""
    original.begin(ISOLATION="session")
    run, fork = original.fork("last@2")
    succeeded(original.crab("resume", run, "--yes", ISOLATION="session"))
    old = [directory for directory in runtime.glob("main-*") if not list(directory.iterdir())]
    for directory in old:
        os.utime(directory, (0, 0))
    succeeded(original.crab("gc"))
    assert [directory.exists() for directory in old] == [True]
    succeeded(original.crab("restore", f"{run}@4"))
    assert fork.ask(0) == (5, "original")
    succeeded(original.crab("undo", str(fork.path)))
    assert fork.ask(0) == (20, "original")


def test_gc_removes_what_forks_shells_have_left(runtime, original):
    run_to_its_end(original)
    run, _fork = original.fork("last@2")
    succeeded(original.crab("resume", run, "--yes"))
    left = list(runtime.glob("main-*"))
    assert len(left) == 2
    for directory in left:
        os.utime(directory, (0, 0))
    succeeded(original.crab("gc"))
    assert not list(runtime.glob("main-*"))
