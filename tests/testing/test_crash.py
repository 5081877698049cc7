"""Children really die where they should, and a death elsewhere is never taken for it."""

import os
import random
import select
import signal
import sys

import pytest

from crabrt.core import failpoints
from crabrt.testing import crash

SCRIPT = """
import sys
from crabrt.core.failpoints import ALL, declare
print("argv", *sys.argv[1:], flush=True)
for name in ("demo.first", "demo.second"):
    point = ALL.get(name)
    for _ in range(3 if point else 0):
        print("before", name, flush=True)
        point()
print("the end", flush=True)
"""

# The launcher under test, with two failpoints declared as a floor of crabrt would declare them.
LAUNCHER = """
import sys
from crabrt.core import failpoints
from crabrt.testing import crash
failpoints.declare("demo.first", "")
failpoints.declare("demo.second", "")
crash._FLOORS = ()
crash._main()
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture
def demo_failpoints(tmp_path, monkeypatch):
    """Children of this test are launched with the two failpoints declared."""
    launcher = tmp_path / "launcher.py"
    launcher.write_text(LAUNCHER)
    popen = crash.subprocess.Popen

    def launched(command, **options):
        if command[1:3] == ["-m", "crabrt.testing.crash"]:
            command = [sys.executable, launcher, *command[3:]]
        return popen(command, **options)

    monkeypatch.setattr(crash.subprocess, "Popen", launched)


@pytest.mark.usefixtures("demo_failpoints")
def test_a_child_dies_by_sigkill_at_the_hit_it_was_armed_for(script, tmp_path):
    died = crash.kill_at("demo.second", 2, script, ["--a", "b"], mark=tmp_path / "mark")
    assert died.returncode == -signal.SIGKILL
    assert died.hit == "demo.second:2"
    assert died.stdout.splitlines()[0] == "argv --a b"
    assert died.stdout.splitlines()[1:] == ["before demo.first"] * 3 + ["before demo.second"] * 2


@pytest.mark.usefixtures("demo_failpoints")
def test_a_failpoint_that_is_hit_less_often_is_no_death(script, tmp_path):
    with pytest.raises(crash.WrongDeath, match="second:4 was not hit"):
        crash.kill_at("demo.second", 4, script, mark=tmp_path / "mark")


@pytest.mark.usefixtures("demo_failpoints")
def test_a_death_by_other_hands_is_not_taken_for_it(tmp_path):
    path = tmp_path / "script.py"
    path.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(crash.WrongDeath):
        crash.kill_at("demo.first", 1, path, mark=tmp_path / "mark")


@pytest.mark.usefixtures("demo_failpoints")
def test_hits_are_counted_and_points_that_were_not_hit_are_named(script, tmp_path):
    # crabrt's own are named too, as many as were imported; the script reaches none of them
    hits = crash.count_hits(script, into=tmp_path / "tally")
    assert {name: count for name, count in hits.items() if count} == {
        "demo.first": 3,
        "demo.second": 3,
    }
    script.write_text("")
    hits = crash.count_hits(script, into=tmp_path / "tally2")
    assert not any(hits.values())
    assert {"demo.first", "demo.second"} <= hits.keys()


@pytest.mark.usefixtures("demo_failpoints")
def test_a_script_that_fails_is_not_counted(tmp_path):
    path = tmp_path / "script.py"
    path.write_text("raise SystemExit(3)")
    with pytest.raises(crash.WrongDeath, match="ended with 3"):
        crash.count_hits(path, into=tmp_path / "tally")


def test_arming_counts_hits_from_one(monkeypatch):
    point = failpoints.Failpoint("demo.here", "")
    monkeypatch.setitem(failpoints.ALL, "demo.here", point)
    died = []
    crash.arm("demo.here", 3, lambda: died.append(1))
    for expected in (0, 0, 1, 1):
        point()
        assert len(died) == expected
    with pytest.raises(ValueError, match="from 1"):
        crash.arm("demo.here", 0, lambda: None)
    with pytest.raises(KeyError):
        crash.arm("demo.nowhere", 1, lambda: None)


FAMILY = """
import subprocess, sys, threading
child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
print("child", child.pid, flush=True)
threading.Event().wait()
"""


def test_a_kill_takes_the_whole_process_group(tmp_path):
    path = tmp_path / "family.py"
    path.write_text(FAMILY)
    with crash.Child(path) as child:
        grandchild = int(child.wait_for("child").split()[1])
        assert child.kill().killed
        # An orphan: whoever adopts it reaps it, so it is gone or a zombie.
        assert _is_dead(grandchild)


def _is_dead(pid):
    handle = -1
    try:
        handle = os.pidfd_open(pid)
        signal.pidfd_send_signal(handle, 0)
        return bool(select.select([handle], [], [], 10)[0])
    except ProcessLookupError:
        return True
    finally:
        if handle >= 0:
            os.close(handle)


def test_a_child_that_had_ended_was_not_killed(tmp_path):
    path = tmp_path / "quick.py"
    path.write_text("print('done')")
    with crash.Child(path) as child:
        assert child.wait().returncode == 0
        with pytest.raises(crash.WrongDeath, match="before it was killed"):
            child.kill()
    with crash.Child(path) as child:
        child.wait()
        assert child.kill_within(0.001, random.Random(1)) is None


def test_a_random_moment_kills_what_still_runs(tmp_path):
    path = tmp_path / "family.py"
    path.write_text(FAMILY)
    with crash.Child(path) as child:
        died = child.kill_within(0.05, random.Random(1))
    assert died is not None
    assert died.killed


def test_waiting_for_a_line_that_never_comes_ends_with_the_child(tmp_path):
    path = tmp_path / "quick.py"
    path.write_text("import sys; print('one'); sys.stderr.write('why'); sys.exit(4)")
    with crash.Child(path) as child, pytest.raises(crash.WrongDeath, match=r"with 4:\nwhy"):
        child.wait_for("two")


def test_a_child_that_writes_much_is_not_held_up(tmp_path):
    path = tmp_path / "loud.py"
    path.write_text("import sys; print('x' * (1 << 20)); sys.stderr.write('y' * (1 << 20))")
    with crash.Child(path) as child:
        died = child.wait()
    assert died.returncode == 0
    assert (len(died.stdout), len(died.stderr)) == ((1 << 20) + 1, 1 << 20)
