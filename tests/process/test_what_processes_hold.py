"""Files of the workspace, and the other ends of connections, as a checkpoint tells them."""

from __future__ import annotations

import os
import socket

import msgspec
import pytest

from crabrt.core.processes import LastingProcess
from crabrt.process import table
from crabrt.process.belongings import LISTED_MOST, Belongings, belongings
from crabrt.process.beside.network import Network
from crabrt.process.beside.room import Room
from crabrt.process.criu import dump
from crabrt.process.criu.mounts import Bind
from crabrt.process.sighting import Sighting, sight

FAMILY = """
    import mmap, signal, socket, sys
    top, port = sys.argv[1:]
    opened = open(top + "/ws/sub/opened")
    with open(top + "/ws/mapped", "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    both = open(top + "/ws/both", "rb")
    again = mmap.mmap(both.fileno(), 0, prot=mmap.PROT_READ)
    gone = open(top + "/ws/gone", "w")
    os.unlink(top + "/ws/gone")
    directory = os.open(top + "/ws", os.O_RDONLY)
    elsewhere = open(top + "/ws beside", "w")
    outer = socket.create_connection(("127.0.0.1", int(port)))
    door = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    if os.fork():
        guest, _ = door.accept()
        ready()
    else:
        outer.close()
        here = socket.create_connection(("127.0.0.1", door.getsockname()[1]))
    signal.pause()
"""

MANY = """
    import signal, sys
    files = [open(f"{sys.argv[1]}/{number}", "w") for number in range(int(sys.argv[2]))]
    ready()
    signal.pause()
"""

WRITER = """
    import signal, sys
    file = open(sys.argv[1] + "/name", "rb+")
    ready()
    signal.pause()
"""


def test_it_is_told_of_each_process_what_it_holds(trees, tmp_path, until):
    ws = tmp_path / "ws"
    (ws / "sub").mkdir(parents=True)
    for name in ("sub/opened", "mapped", "both", "gone"):
        (ws / name).write_text("text")
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        top = trees.start(FAMILY, tmp_path, port)
        with door.accept()[0]:
            (below,) = until(lambda: table.descendants(top.pid))
            found = sight([table.look(top.pid), below], Sighting(), bytes(ws))
            ((first, second),) = (tree.processes for tree in found.state.trees)
            assert first.files == (b"sub/opened", b"both", b"mapped")
            assert first.connections == (f"tcp 127.0.0.1:{port}",)  # the other one is within
            assert len(first.listens) == 1
            assert first.unlisted == second.unlisted == 0
            assert second.files == first.files
            assert second.connections == ()
            alone = belongings(below.pid, bytes(ws))
            assert len(alone.connections) == 1  # whose other end is none of its own


def test_who_slept_is_not_looked_at_again(trees, tmp_path, until):
    ws = tmp_path / "ws"
    ws.mkdir()
    child = trees.start(MANY, ws, 1)
    process = until(lambda: (one := table.look(child.pid)).state == "S" and one)
    first = sight([process], Sighting(), bytes(ws))
    assert first.processes[0].files == (b"0",)
    assert sight([process], first, bytes(ws)).processes[0] is first.processes[0]


def test_of_many_files_some_are_named_and_the_others_counted(trees, tmp_path):
    ws = tmp_path / "ws"
    ws.mkdir()
    child = trees.start(MANY, ws, LISTED_MOST + 7)
    found = belongings(child.pid, bytes(ws))
    assert len(found.files) == LISTED_MOST
    assert set(found.files) < {b"%d" % number for number in range(LISTED_MOST + 7)}
    assert found.unlisted == 7


def test_who_has_ended_or_has_no_workspace_holds_nothing(trees, tmp_path):
    child = trees.start(MANY, tmp_path, 1)
    assert belongings(child.pid, b"").files == ()
    trees.end(child.pid)
    assert belongings(child.pid, bytes(tmp_path)) == Belongings()


@pytest.mark.root
def test_a_file_of_a_fork_is_told_by_its_own_place(criu, trees, images, tmp_path):
    new, old = tmp_path / "new", tmp_path / "old"
    for directory in (new, old):
        directory.mkdir()
        (directory / "name").write_text("same")
    child = trees.start(WRITER, old)
    dump(criu, child.pid, images)
    room = Room(Network(), [Bind(bytes(new), bytes(old))])
    try:
        copy = room.restore(criu, images)
        assert belongings(copy, bytes(new)).files == (b"name",)
        assert belongings(child.pid, bytes(old)).files == (b"name",)
        assert belongings(child.pid, bytes(new)).files == ()
        assert os.stat(f"/proc/{copy}/fd/3").st_ino == (new / "name").stat().st_ino
    finally:
        room.end()


def test_a_process_that_was_recorded_before_is_read(tmp_path):
    before = msgspec.msgpack.encode([71, 1, 12345, [b"server"], b"/ws", ["tcp 127.0.0.1:80"]])
    process = msgspec.msgpack.decode(before, type=LastingProcess)
    assert process.listens == ("tcp 127.0.0.1:80",)
    assert (process.files, process.connections, process.unlisted) == ((), (), 0)
    whole = LastingProcess(1, 0, 2, files=(b"a",), connections=("tcp 10.0.0.7:1",), unlisted=3)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(whole), type=LastingProcess) == whole
