"""``crab show`` tells of each process that outlived a turn what it holds."""

from __future__ import annotations

import pytest

from crabrt.core.processes import LastingProcess, ProcessState, ProcessTree


@pytest.fixture
def run(builder, home, workspace):
    workspace.mkdir(exist_ok=True)
    made = builder.RunBuilder(home, workspace)
    server = LastingProcess(
        71, 1, 5, (b"/usr/bin/serve",), b"/ws", ("tcp 127.0.0.1:8000",), (b"data.db",)
    )
    files = tuple(b"log-%d" % number for number in range(6))
    worker = LastingProcess(
        72, 71, 6, (b"worker",), b"/ws", (), files, ("tcp 192.0.2.7:443",), 2
    )  # fmt: skip
    below = LastingProcess(73, 72, 7, (b"below",), b"/ws", (), (b"last",))
    tree = ProcessTree((server, worker, below), imaged=True)
    made.turn(alive=ProcessState("boot", (tree,)))
    made.end()
    return made


def test_each_has_its_own_lines(run, crab):
    shown = crab("show", "last@1").out
    assert (
        "alive       serve (pid 71, tcp 127.0.0.1:8000) and 2 below it: imaged\n"
        "              holds data.db\n"
        "              └ worker (pid 72)\n"
        "                  holds log-0, log-1, log-2, log-3, 2 more\n"
        "                  talks to tcp 192.0.2.7:443\n"
        "                  2 more files and connections are not listed\n"
        "                └ below (pid 73)\n"
        "                    holds last\n"
    ) in shown
