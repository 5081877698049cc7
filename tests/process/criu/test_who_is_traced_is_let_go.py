"""A process that cannot be made to do something is let go of: nobody stays traced."""

import os
import signal
from pathlib import Path

import pytest

from crabrt.process import table, tracing
from crabrt.process.tracing import Traced

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not tracing.SUPPORTED, reason="kernel: not of x86-64"),
]

SLEEPER = "import signal; ready(); signal.pause()"
READER = "import sys; ready(); os.read(0, 1)"


def tracer_of(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("TracerPid:")))


def test_one_that_was_woken_meanwhile_is_let_go(trees, monkeypatch):
    child = trees.start(SLEEPER)
    monkeypatch.setattr(tracing, "_LIMIT_S", 0.1)
    with pytest.raises(OSError, match="does not stop"), Traced(child.pid):
        raise AssertionError
    assert tracer_of(child.pid) == 0
    child.send_signal(signal.SIGTERM)  # who traced it would have to pass that on
    assert child.wait(20) == -signal.SIGTERM


def test_one_whose_call_does_not_end_is_let_go_in_it(trees, until, monkeypatch):
    reads, writes = os.pipe()
    child = trees.start(READER, stdin=reads)
    os.close(reads)
    until(lambda: table.look(child.pid).state == "S")
    child.send_signal(signal.SIGSTOP)
    until(lambda: table.look(child.pid).state == "T")
    with Traced(child.pid) as traced:
        monkeypatch.setattr(tracing, "_LIMIT_S", 0.1)
        with pytest.raises(OSError, match="does not stop"):
            traced.call(34)  # pause
    assert tracer_of(child.pid) == 0
    child.send_signal(signal.SIGCONT)
    os.write(writes, b".")
    os.close(writes)
    assert child.wait(20) == 0
