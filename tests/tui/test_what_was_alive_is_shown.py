"""A turn on the screen tells of each process that outlived it what it holds."""

from __future__ import annotations

from crabrt.core.processes import LastingProcess, ProcessState, ProcessTree
from crabrt.tui.turn_text import alive


def test_each_has_its_own_lines():
    server = LastingProcess(
        71, 1, 5, (b"/usr/bin/serve",), b"/ws", ("tcp :8000",), (b"data.db",), (), 2
    )  # fmt: skip
    worker = LastingProcess(
        72, 71, 6, (b"worker",), b"/ws", (), (b"\x1b[2Jlog",), ("tcp 192.0.2.7:443",)
    )
    tree = ProcessTree((server, worker), why_not="it is traced")
    lines = ["".join(piece.text for piece in line) for line in alive(ProcessState("b", (tree,)))]
    assert lines == [
        "alive     serve (pid 71, tcp :8000) and 1 below it  no image",
        "            it is traced",
        "            holds data.db",
        "            2 more files and connections are not listed",
        "            └ worker (pid 72)",
        '                holds "\\x1b[2Jlog"',
        "                talks to tcp 192.0.2.7:443",
        "",
    ]


def test_nothing_is_shown_where_nothing_was_alive():
    assert list(alive(ProcessState("boot"))) == []
