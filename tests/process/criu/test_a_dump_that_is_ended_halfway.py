"""CRIU ended in the middle of a dump, at many moments: the tree runs on, its connections work."""

import contextlib
import itertools
import math
import operator
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from crabrt.process import table
from crabrt.process.criu import Cause, NotImaged, dump
from crabrt.process.criu.dumping import COMMON_OPTIONS

pytestmark = pytest.mark.root

BUSY = """
    import os, socket, sys, threading, time
    memory = bytearray(os.urandom(1 << 20)) * 64
    door = socket.create_server(("127.0.0.1", 0))
    here = socket.create_connection(door.getsockname())
    there, _ = door.accept()
    for _ in range(3): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    number = 0 if os.fork() else 1
    if number or sys.argv[2:]: here = there = None
    if not number: ready()
    count = 0
    while True:
        if here is not None:
            here.sendall(b"x")
            assert there.recv(1) == b"x"
        count += 1
        os.pwrite(counts, b"%10d" % count, 16 * number)
        time.sleep(0.002)
"""
BUSY = BUSY.replace("    memory", "    counts = os.open(sys.argv[1], os.O_RDWR)\n    memory", 1)
MOMENTS = 24
ENOUGH, PATIENCE_S = 2, 300


@pytest.fixture
def busy(trees, tmp_path, until, request):
    """Two processes that count, one of them through a connection unless that is left out."""
    counts = tmp_path / "counts"
    counts.write_bytes(bytes(32))
    child = trees.start(BUSY, counts, *getattr(request, "param", ()))
    (below,) = table.children(child.pid)

    def counted():
        text = counts.read_bytes()
        return [int(text[at : at + 16].rstrip(b"\0 ") or 0) for at in (0, 16)]

    def ended():
        everybody = [table.look(pid) for pid in (child.pid, below)]
        return any(one is None or one.ended for one in everybody)

    def runs_on():
        """Whether both go on counting, the one through a connection; else one of them ended."""
        before = [count + 3 for count in counted()]
        until(lambda: ended() or all(map(operator.gt, counted(), before)))
        return not ended()

    until(lambda: min(counted()) > 0)
    child.runs_on = runs_on
    child.counts = counts
    child.both = (below, child.pid)
    return child


def whole_dump_s(criu, pid, images):
    return dump(criu, pid, images).took_s


def attempt(criu, pid, images, **given):
    """How a dump failed; None if it did not."""
    try:
        dump(criu, pid, images, **given)
    except NotImaged as error:
        return error
    return None


def test_whenever_the_limit_strikes_the_tree_runs_on(criu, busy, tmp_path):
    took_s = whole_dump_s(criu, busy.pid, tmp_path / "whole")
    struck = 0
    for moment in range(MOMENTS):
        images = tmp_path / f"part-{moment}"
        error = attempt(criu, busy.pid, images, limit_s=took_s * moment / MOMENTS)
        if error is not None:
            struck += 1
            assert error.cause is Cause.TIME_LIMIT
            assert error.lost == ()
            assert list(images.iterdir()) == []
        assert busy.runs_on()
    assert struck > MOMENTS // 4  # the first dump may have been the slowest
    dump(criu, busy.pid, tmp_path / "at-last")  # what was left in it is no obstacle


def test_where_it_is_about_to_leave_a_process_its_end_waits(criu, busy, tmp_path):
    """It leaves through a breakpoint: who meets that when CRIU is gone dies of it."""
    caught, until = 0, time.monotonic() + PATIENCE_S
    for number in itertools.count():
        images = tmp_path / f"part-{number}"
        with Stopper(busy.pid) as stopper:
            error = attempt(criu, busy.pid, images, until=stopper.until)
        if stopper.caught:
            caught += 1
            assert error is not None
            assert error.cause is Cause.TIME_LIMIT
            assert error.lost == ()
        assert busy.runs_on()
        if caught == ENOUGH or time.monotonic() > until:
            break
    assert caught == ENOUGH


class Stopper:
    """Stops the CRIU that dumps a process while that is stopped in CRIU's code, on the way out."""

    def __init__(self, pid):
        self.pid = pid
        self.caught = False
        self._over = False
        self._thread = threading.Thread(target=self._run)

    def until(self):
        return 0.0 if self.caught else math.inf

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._over = True
        self._thread.join()

    def _run(self):
        while not self._over and not (program := children_of_this_process_that_dump(self.pid)):
            pass
        served = False
        while not self._over:
            at = self._in_the_parasite()
            served = served or at == "S"
            if served and at == "t":
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(program, signal.SIGSTOP)
                    self.caught = self._in_the_parasite() == "t"
                    if self.caught:
                        return
                    os.killpg(program, signal.SIGCONT)

    def _in_the_parasite(self):
        """The state of its first thread, if that is in CRIU's code."""
        with contextlib.suppress(OSError, ValueError):
            at = int(Path(f"/proc/{self.pid}/syscall").read_text().split()[-1], 16)
            for line in Path(f"/proc/{self.pid}/maps").read_text().splitlines():
                begin, end = (int(word, 16) for word in line.split()[0].split("-"))
                if begin <= at < end and "/memfd:CRIUMFD" in line:
                    return table.look(self.pid).state
        return None


# Connections that are in use then may break or stall: the tree is quicker than who mends them.
@pytest.mark.parametrize("busy", [["unconnected"]], indirect=True)
def test_what_a_criu_that_somebody_kills_takes_with_it_comes_back_from_the_last_image(
    criu, busy, trees, tmp_path, until
):
    images = tmp_path / "whole"
    took_s = whole_dump_s(criu, busy.pid, images)
    killed = 0
    for moment in range(MOMENTS):

        def kill(after_s=took_s * moment / MOMENTS):
            program = until(lambda: children_of_this_process_that_dump(busy.pid))
            time.sleep(after_s)
            with contextlib.suppress(ProcessLookupError):
                os.kill(program, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        error = attempt(criu, busy.pid, tmp_path / f"part-{moment}")
        killer.join()
        if error is not None:
            killed += 1
            assert error.cause is Cause.KILLED
            assert "SIGKILL" in str(error)
        if not busy.runs_on():
            trees.end(*busy.both)
            busy.counts.write_bytes(bytes(32))  # the image's are lower
            trees.restore(criu, images)
        assert busy.runs_on()
    assert killed > MOMENTS // 4


def test_a_tree_that_stood_still_stands_still_after_its_dump_was_ended(criu, busy, until, tmp_path):
    took_s = whole_dump_s(criu, busy.pid, tmp_path / "whole")
    for pid in busy.both:
        os.kill(pid, signal.SIGSTOP)
    until(lambda: {table.look(pid).state for pid in busy.both} == {"T"})
    for moment in range(6):
        with pytest.raises(NotImaged):
            dump(criu, busy.pid, tmp_path / f"part-{moment}", limit_s=took_s * moment / 24)
        assert {table.look(pid).state for pid in busy.both} == {"T"}
    for pid in busy.both:
        os.kill(pid, signal.SIGCONT)
    assert busy.runs_on()


def children_of_this_process_that_dump(pid):
    for child in table.children(os.getpid()):
        if str(pid).encode() in table.command(child) and b"dump" in table.command(child):
            return child
    return None


def test_the_options_of_dumps_and_restores_name_no_network_lock():
    # Locks outlive a CRIU that is killed, and would cut the tree off.
    assert not any("network-lock" in option for option in COMMON_OPTIONS)
