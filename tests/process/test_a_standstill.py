"""Processes that are stopped go on: when they may, and when whoever stopped them dies."""

import os
import signal
import subprocess
import sys
import time

import pytest

from crabrt.process import table
from crabrt.process.standstill import Standstill

LIMIT_S = 20
COUNTS = """
import itertools, mmap, os, sys
shared = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 8)
for number in itertools.count(1):
    shared[:8] = number.to_bytes(8, "little")
"""


def until(happened):
    end = time.monotonic() + LIMIT_S
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)


@pytest.fixture
def counter(tmp_path):
    path = tmp_path / "count"
    path.write_bytes(bytes(8))
    command = [sys.executable, "-c", COUNTS, str(path)]
    with subprocess.Popen(command, start_new_session=True) as child:
        count = lambda: int.from_bytes(path.read_bytes(), "little")  # noqa: E731
        until(lambda: count() > 0)
        yield child.pid, count
        child.kill()


def test_it_stands_still_and_goes_on(counter):
    pid, count = counter
    with Standstill() as still:
        assert still.stop([pid])
        before = count()
        assert table.look(pid).state == "T"
        assert count() == before
    until(lambda: count() > before)


def test_it_goes_on_when_its_holder_is_killed(counter):
    pid, count = counter
    script = (
        "import os, sys, time\nfrom crabrt.process.standstill import Standstill\n"
        "still = Standstill()\nassert still.stop([int(sys.argv[1])])\n"
        "print('.', flush=True)\ntime.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(pid)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b".\n"
        before = count()
        assert table.look(pid).state == "T"
        holder.kill()
    until(lambda: count() > before)


def test_who_was_stopped_before_stays_so(counter):
    pid, count = counter
    os.kill(pid, signal.SIGSTOP)
    until(lambda: table.look(pid).state == "T")
    before = count()
    with Standstill() as still:
        assert still.stop([pid])
    assert table.look(pid).state == "T"
    assert count() == before
    os.kill(pid, signal.SIGCONT)


def test_children_that_are_born_meanwhile_are_stopped_too(tmp_path):
    script = "while :; do sleep 0.01 & wait; done"
    with subprocess.Popen(["bash", "-c", script]) as child:
        with Standstill() as still:
            assert still.stop_all(
                lambda: [child.pid, *(one.pid for one in table.descendants(child.pid))]
            )
            everybody = [table.look(child.pid), *table.descendants(child.pid)]
            assert {one.state for one in everybody} <= {"T", "Z"}
        until(lambda: table.look(child.pid).state != "T")
        child.kill()


PARKS = """
import os, signal, sys
from pathlib import Path
from crabrt.process import table
from crabrt.process.criu import Criu, dump
from crabrt.process.criu.holding import Hold
from crabrt.process.standstill import Standstill
pid, images, program = int(sys.argv[1]), *sys.argv[2:]
still = Standstill()
still.watch([pid])
hold = Hold(lambda: os.kill(os.getpid(), signal.SIGKILL))
dump(Criu(Path(program), (0, 0, 0)), pid, Path(images), leave="stopped", hold=hold)
"""


@pytest.mark.root
def test_what_an_image_leaves_stopped_goes_on_when_its_holder_is_killed_before(
    criu, counter, images
):
    pid, count = counter
    done = subprocess.run(
        [sys.executable, "-c", PARKS, str(pid), str(images), str(criu.program)], check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert list(images.iterdir())
    until(lambda: table.look(pid).state == "R")
    before = count()
    until(lambda: count() > before)
