"""What a run has alive is looked after, also where a look fails."""

from __future__ import annotations

import subprocess
import time

import pytest

from crabrt.process.custody import Custody
from crabrt.process.family import Family


@pytest.fixture
def custody():
    made = Custody(tracks=True, imager=lambda: "nobody takes images here")
    yield made
    made.close()


def test_what_began_while_nobody_could_look_is_judged_by_when_it_began(custody, monkeypatch):
    def fails(*_):
        raise OSError("the processes cannot be listed")

    before_ns = time.monotonic_ns()
    with subprocess.Popen(["sleep", "1000"]) as child:
        while_a_tool_ran = ((before_ns, time.monotonic_ns()),)
        with monkeypatch.context() as patched:
            patched.setattr(Family, "look", fails)
            assert custody.look(while_a_tool_ran).unseen == "the processes cannot be listed"
        seen = custody.look(())
        child.kill()
    assert [one.pid for one in seen.processes] == [child.pid]
    assert not seen.unseen
