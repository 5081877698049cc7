"""A tree stands still while something is done, and never longer than somebody holds it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crabrt.process import table
from crabrt.process.criu import Cause, NotImaged, calling, dump, dumping
from crabrt.process.criu.holding import Hold

pytestmark = pytest.mark.root

COUNTS = """
    import itertools, mmap, sys
    shared = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 8)
    ready()
    for number in itertools.count():
        shared[:8] = number.to_bytes(8, "little")
"""


@pytest.fixture
def counter(trees, tmp_path):
    """A process that counts, and a function that tells how far it is."""
    path = tmp_path / "count"
    path.write_bytes(bytes(8))
    child = trees.start(COUNTS, path)
    return child.pid, lambda: int.from_bytes(path.read_bytes(), "little")


def test_it_stands_still_while_the_work_is_done_and_runs_on(criu, counter, images, until):
    pid, count = counter
    seen = []

    def work():
        seen.append(count())
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            seen.append(count())

    dumped = dump(criu, pid, images, hold=Hold(work))
    assert len(seen) > 10
    assert len(set(seen)) == 1
    assert dumped.size_bytes > 0
    assert (images / "inventory.img").exists()
    until(lambda: count() > seen[0])


def test_what_the_work_raises_goes_up_and_the_tree_runs_on(criu, counter, images, until):
    pid, count = counter

    def work():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        dump(criu, pid, images, hold=Hold(work))
    before = count()
    until(lambda: count() > before)
    assert os.listdir(images) == []


def test_a_tree_that_cannot_be_imaged_is_not_held(criu, images):
    done = []
    with pytest.raises(NotImaged):
        dump(criu, 2**22 - 1, images, hold=Hold(lambda: done.append(1)))
    assert done == []


@pytest.mark.parametrize("moment", ["before it is told", "while it works"])
def test_nobody_stands_still_for_longer_than_its_holder_lives(
    criu, counter, images, until, tmp_path, moment
):
    pid, count = counter
    told = tmp_path / "told"
    dies = "os.kill(os.getpid(), 9)"
    work = f"open({str(told)!r}, 'w').close(); time.sleep(60)"
    script = f"""
import os, sys, time
from pathlib import Path
from crabrt.process.criu import dump, probing
from crabrt.process.criu.holding import Hold
def work():
    {work if moment == "while it works" else "pass"}
if {moment == "before it is told"}:
    Hold._is_held = lambda *_: {dies}
dump(probing.probe(Path({str(criu.program)!r})), {pid}, Path({str(images)!r}), hold=Hold(work))
"""
    holder = subprocess.Popen([sys.executable, "-c", script])
    if moment == "while it works":
        until(told.exists)
        holder.kill()
    assert holder.wait() == -signal.SIGKILL
    until(lambda: table.look(pid).state != "t")
    before = count()
    until(lambda: count() > before)


def test_a_tree_that_went_on_before_the_work_was_done_has_no_image(criu, counter, images, until):
    pid, count = counter

    def work():
        before = count()
        until(lambda: count() > before)  # nobody stands still for longer than the limit

    with pytest.raises(NotImaged, match="went on after 1 s") as caught:
        dump(criu, pid, images, hold=Hold(work, limit_s=1))
    assert caught.value.cause is Cause.TIME_LIMIT
    assert caught.value.where == f"process {pid}"
    assert os.listdir(images) == []
    before = count()
    until(lambda: count() > before)


@pytest.mark.parametrize("there", [(), ("timeout",)], ids=["absent", "fails"])
def test_where_a_tree_cannot_be_held_nothing_is_done_beside_it(
    criu, counter, images, until, tmp_path, monkeypatch, there
):
    pid, count = counter
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "cat"):
        os.symlink(shutil.which(name), programs / name)
    for name in there:
        (programs / name).write_text("#!/bin/sh\nexit 3\n")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(calling, "ENVIRONMENT", {"PATH": str(programs)})
    done = []
    with pytest.raises(NotImaged, match="could not be held") as caught:
        dump(criu, pid, images, hold=Hold(lambda: done.append(1)))
    assert caught.value.cause is Cause.OTHER
    assert done == []
    assert os.listdir(images) == []
    before = count()
    until(lambda: count() > before)


def test_how_likely_the_kernel_ends_criu_is_set_for_it_alone(criu, counter, images, monkeypatch):
    monkeypatch.setattr(dumping, "_OOM_SCORE", "17")  # less than 0 is not allowed everywhere
    scores = []

    def work():
        below = [one.pid for one in table.descendants(os.getpid())]
        ours = [pid for pid in below if b"--leave-running" in table.command(pid)]
        scores.extend(Path(f"/proc/{pid}/oom_score_adj").read_text() for pid in ours)

    dump(criu, counter[0], images, hold=Hold(work))
    assert set(scores) == {"17\n"}
    assert Path(f"/proc/{counter[0]}/oom_score_adj").read_text() != "17\n"
