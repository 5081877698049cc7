"""A run that rolls back has its servers and shells as they were then, also if it is killed."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from crabrt.process import table

from .counted_runs import Agent, succeeded

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("criu")]

SAID = {
    "shell": "['', '/usr\\n', 'f3\\n', '2\\n/usr\\nf2\\n', 'f9\\n', '1\\n/usr\\nf1\\n']\n",
    "nested": "[1, [5, 10], 11, 110, 2, 1001, False, 1]\n",
    "opened": "[1, 11, 101, 1]\n",
}


@pytest.fixture
def rolling(tmp_path, criu):
    made = Agent(tmp_path, criu.program, Path(__file__).with_name("rolling.py"))
    made._env["CRAB_GATE_LIMIT_MS"] = "60000"
    yield made
    mark = os.fsencode(made.ws)
    for name in filter(str.isdecimal, os.listdir("/proc")):
        if mark in b" ".join(table.command(int(name))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(name), signal.SIGKILL)


@pytest.mark.parametrize("what", SAID)
def test_what_was_alive_is_as_it_was(rolling, what):
    assert succeeded(rolling.run(what)) == SAID[what]


@pytest.mark.parametrize(
    ("what", "die_at"),
    [("shell", 4), ("shell", 5), ("nested", 101), ("nested", 102), ("nested", 3), ("nested", 4)],
)
def test_it_goes_on_to_the_same_end_when_all_of_it_is_killed(rolling, what, die_at):
    rolling.run(what, die_at)
    run = next(iter(sorted((rolling.home / "runs").glob("rolling-*")))).name
    assert succeeded(rolling.run(what, resume=run)) == SAID[what]
