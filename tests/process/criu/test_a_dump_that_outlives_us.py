"""A CRIU that hangs when nobody is left who could end it is ended: a tree it dumps runs on, and of
one that it restores nothing is left."""

import os
import signal
import subprocess
import sys

import pytest

from crabrt.process import orphans, table
from crabrt.process.criu import dump, guarding

pytestmark = pytest.mark.root

SLEEPER = "import signal; ready(); signal.pause()"

LIMIT_S = 20

CALLER = """
import sys
from pathlib import Path
from crabrt.process.criu import Criu, dump, dumping
limit_s = float(sys.argv[4])
dumping._OUTLIVES_S = 4 - limit_s
dump(Criu(Path(sys.argv[1]), (4, 2, 0)), int(sys.argv[2]), Path(sys.argv[3]), limit_s=limit_s)
"""


@pytest.fixture
def hanging(tmp_path):
    """A program that never ends, nor what it started; and who they are, once they run."""
    program, told = tmp_path / "criu", tmp_path / "told"
    program.write_text(
        f"#!/bin/sh\nsleep 1000 &\necho $$ $! > {told}.new\nmv {told}.new {told}\n"
        "trap '' TERM HUP\nwait\nwhile :; do sleep 1000; done\n"
    )
    program.chmod(0o755)
    return program, told


def lives(pid):
    found = table.look(pid)
    return found is not None and not found.ended


def test_it_is_ended_with_all_it_started(trees, images, until, hanging):
    child = trees.start(SLEEPER)
    program, told = hanging
    words = [sys.executable, "-c", CALLER, program, child.pid, images, LIMIT_S]
    caller = subprocess.Popen([str(word) for word in words])
    until(told.exists)
    caller.kill()
    assert caller.wait() == -signal.SIGKILL
    everybody = [int(word) for word in told.read_text().split()]
    assert any(map(lives, everybody))  # it has its time first
    until(lambda: not any(map(lives, everybody)))
    assert lives(child.pid)


RESTORER = """
import sys
from pathlib import Path
from crabrt.process.criu import Criu, restore
own = sys.argv[4] == "own"
restore(Criu(Path(sys.argv[1]), (4, 2, 0)), Path(sys.argv[2]), limit_s=1, own_namespace=own)
"""


@pytest.mark.parametrize("own", ["own", ""])
def test_a_restore_that_hangs_is_ended_with_all_it_made(
    criu, trees, images, until, tmp_path, monkeypatch, own
):
    """It hangs over damaged images, half done: those of a process in the middle of its memory."""
    code = "import os, signal\nmemory = os.urandom(8 << 20)\nready()\nsignal.pause()"
    pid = trees.inside(code) if own else trees.start(code).pid
    dump(criu, pid, images, own_namespace=bool(own))
    trees.end(pid)
    (pages,) = images.glob("pages-*.img")
    os.truncate(pages, 10 * 4096)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    words = [sys.executable, "-c", RESTORER, criu.program, images, LIMIT_S, own]
    caller = subprocess.Popen([str(word) for word in words], stderr=subprocess.DEVNULL)

    def made():
        below = [one.pid for one in table.descendants(os.getpid()) if one.pid != caller.pid]
        return [pid for pid in below if guarding.is_half(pid)]

    until(lambda: not guarding.await_others(images.parent, 0))
    until(lambda: len(made()) > 1)  # CRIU, and what it has made
    caller.kill()
    assert caller.wait() == -signal.SIGKILL
    assert made()
    assert not guarding.await_others(images.parent, 0)
    until(lambda: not made())
    until(lambda: not list(scratch.iterdir()))
    assert guarding.await_others(images.parent, LIMIT_S)


def test_who_has_its_number_by_then_is_left_alone(trees):
    child = trees.start(SLEEPER)
    began = table.look(child.pid).started
    for told, ended in ((began - 1, None), (began, -signal.SIGKILL)):
        words = ["/bin/sh", "-c", guarding._SCRIPT, "sh", str(child.pid), str(told), "0"]
        subprocess.run(words, stdin=subprocess.DEVNULL, check=False, timeout=LIMIT_S)
        assert (child.poll() if ended is None else child.wait(LIMIT_S)) == ended


POLLER = "import select; ready(); select.poll().poll()"

DIES_IN_IT = """
import os, signal, sys
from pathlib import Path
from crabrt.process.criu import Criu, dump
from crabrt.process.criu.holding import Hold
hold = Hold(lambda: os.kill(os.getpid(), signal.SIGKILL))
dump(Criu(Path(sys.argv[1]), (4, 2, 0)), int(sys.argv[2]), Path(sys.argv[3]), hold=hold)
"""


def test_nothing_that_a_dump_leaves_is_taken_for_a_runs_own(criu, trees, images):
    """It stood still for its image, so there are two guards."""
    child = trees.start(POLLER)
    words = [sys.executable, "-c", DIES_IN_IT, str(criu.program), str(child.pid), str(images)]
    done = subprocess.run(words, env={**os.environ, "CRAB_RUN": "some-run"}, check=False)
    assert done.returncode == -signal.SIGKILL
    left = [one.pid for one in table.descendants(os.getpid()) if one.pid != child.pid]
    commands = [b" ".join(table.command(pid)) for pid in left]
    for guard in (b"kill -CONT", b'sleep "$3"'):
        assert any(guard in command for command in commands)
    assert [pid for pid in left if orphans.said_by(pid)] == []


def test_nobody_guards_what_is_over(criu, trees, images):
    child = trees.start(SLEEPER)
    before = {one.pid for one in table.descendants(os.getpid())}
    dump(criu, child.pid, images)
    assert {one.pid for one in table.descendants(os.getpid())} == before
