"""A signal for a process that is no more reaches nobody who has its number now."""

from __future__ import annotations

import signal

import pytest

from crabrt.process import orphans, parking, table
from crabrt.process.signalling import send

SLEEPER = "import signal; ready(); signal.pause()"


@pytest.mark.parametrize(
    "end",
    [lambda who: send(who, signal.SIGKILL), lambda who: parking.kill([who]),
     lambda who: orphans.stop([who])],
    ids=["send", "kill", "stop"],
)  # fmt: skip
def test_only_that_very_process_is_ended(trees, until, end):
    child = trees.start(SLEEPER)
    pid, started = table.look(child.pid).identity
    end((pid, started - 1))  # who had the number before
    assert not table.look(pid).ended
    end((pid, started))
    until(lambda: (found := table.look(pid)) is None or found.ended)
    child.wait(20)


def test_one_whose_first_thread_has_ended_is_ended_whole(trees, until):
    child = trees.start("""
        import ctypes, threading, time
        threading.Thread(target=time.sleep, args=(1000,)).start()
        ready()
        ctypes.CDLL(None).pthread_exit(None)
    """)
    until(lambda: table.look(child.pid).ended)
    assert child.poll() is None
    parking.kill([table.look(child.pid).identity])
    assert table.look(child.pid) is None
