"""Who stands still and is ended does nothing any more: not even when its terminal goes."""

from __future__ import annotations

import itertools
import os
import select
import signal

import pytest

from crabrt.process import parking, signalling, table

JOB = """
    import fcntl, os, signal, sys, termios
    if int(sys.argv[2]) >= 0:  # the terminal's session is ours
        fcntl.ioctl(int(sys.argv[2]), termios.TIOCSCTTY, 0)
    job = os.fork()
    if job:
        if int(sys.argv[2]) >= 0:
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.setpgid(job, job)
            os.tcsetpgrp(int(sys.argv[2]), job)
        signal.pause()
    def hears(*_):
        open(sys.argv[1], "w").close()
        os._exit(0)
    os.setpgid(0, 0)
    signal.signal(signal.SIGHUP, hears)
    ready()
    signal.pause()
"""


def slowly(monkeypatch) -> list[int]:
    """Whoever is killed has ended before the next one is: as on a machine with much to do."""
    order = []

    def send(who, number):
        handle = os.pidfd_open(who[0])
        is_sent = signalling.send(who, number)
        order.append(who[0])
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        assert poll.poll(20_000)
        os.close(handle)
        return is_sent

    monkeypatch.setattr(parking, "send", send)
    return order


def stopped(until, *pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    until(lambda: all(table.look(pid).state == "T" for pid in pids))
    return [table.look(pid).identity for pid in pids]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_stopped_job_does_not_hear_that_its_shell_ends(
    trees, tmp_path, until, monkeypatch, terminal
):
    ends = os.openpty() if terminal else ()
    wrote = tmp_path / "wrote"
    shell = trees.start(JOB, wrote, ends[1] if ends else -1, pass_fds=ends[1:])
    (job,) = table.children(shell.pid)
    found = stopped(until, shell.pid, job)
    order = slowly(monkeypatch)
    shell.returncode = -signal.SIGKILL  # collected by whoever ends it
    parking.kill(found)
    assert order == [job, shell.pid]
    assert not wrote.exists()
    for fd in ends:
        os.close(fd)


def test_whoever_left_its_parent_ends_before_the_first_of_its_session(trees, until, monkeypatch):
    code = """
        import os, signal
        if not os.fork():
            if os.fork():
                os._exit(0)
            ready()
        else:
            os.wait()
        signal.pause()
    """
    first = trees.start(code)
    others = {one.pid: one for one in table.descendants(os.getpid())}
    (left,) = [pid for pid, one in others.items() if one.session == first.pid != pid]
    until(lambda: table.look(left).parent != first.pid)
    found = stopped(until, first.pid, left)
    order = slowly(monkeypatch)
    first.returncode = -signal.SIGKILL
    parking.kill(found)
    assert order == [left, first.pid]


def test_each_ends_before_its_parent(trees):
    code = """
        import os, signal, sys
        for _ in range(3):
            if os.fork():
                signal.pause()
        ready()
        signal.pause()
    """
    top = trees.start(code)
    found = [one.identity for one in (table.look(top.pid), *table.descendants(top.pid))]
    assert len(found) == 4
    for order in itertools.permutations(found):
        assert signalling.last_first(order) == found[::-1]
