"""Trees of another user than root are imaged as well, where root may do all but raise limits."""

import os
import shutil
import socket

import pytest

from crabrt.process import table
from crabrt.process.criu import Cause, Criu, NotImaged, dump, owners
from crabrt.process.criu.holding import Hold

pytestmark = pytest.mark.root

NOBODY = 65534
SYS_RESOURCE = 1 << 24
CAPS = "+dac_override"  # where Python lies root alone may come
OTHER = {
    "before": (
        *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
        *(f"--inh-caps={CAPS}", f"--ambient-caps={CAPS}"),
    )
}
SERVER = """
    import mmap, os, signal, socket, sys
    shared = mmap.mmap(-1, 4096)
    door = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    joined = socket.create_connection(door.getsockname())
    guest, _ = door.accept()
    if not os.fork():
        guest.send(b"crab")
        shared[:4] = b"king"
        signal.pause()
    ready()
    while True:
        client, _ = door.accept()
        client.sendall(shared[:4] + joined.recv(4, socket.MSG_PEEK) + b" %d" % os.getuid())
        client.close()
"""
MIXED = """
    import os, signal
    if not os.fork():
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        ready()
        signal.pause()
    signal.pause()
"""


@pytest.fixture
def lacking(monkeypatch):
    """Of what root may do, this is missing, as in many containers."""
    held = owners._capabilities()
    monkeypatch.setattr(owners, "_capabilities", lambda: held & ~SYS_RESOURCE)


@pytest.fixture
def denied(criu, tmp_path):
    """A CRIU that is called with all but that."""
    program = tmp_path / "denied"
    caps = "--inh-caps=-sys_resource --bounding-set=-sys_resource"
    program.write_text(f'#!/bin/sh\nexec setpriv {caps} {criu.program} "$@"\n')
    program.chmod(0o755)
    return Criu(program, criu.version)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as door:
        return door.getsockname()[1]


def said(port):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        return client.recv(100)


@pytest.mark.usefixtures("lacking")
@pytest.mark.parametrize("leave", ["running", "stopped"])
def test_one_users_tree_is_imaged_and_comes_back_as_his(denied, criu, trees, images, until, leave):
    port = free_port()
    server = trees.start(SERVER, port, **OTHER)
    until(lambda: said(port) == b"kingcrab 65534")
    seen = []

    def look():
        seen.extend(one.state for one in (table.look(server.pid), *table.descendants(server.pid)))

    dump(denied, server.pid, images, leave=leave, hold=Hold(look))
    assert len(seen) == 2
    assert set(seen) <= {"t", "T"}
    if leave == "running":
        assert said(port) == b"kingcrab 65534"
    trees.end(server.pid)
    assert trees.restore(denied, images) == server.pid
    assert said(port) == b"kingcrab 65534"
    assert os.stat(f"/proc/{server.pid}").st_uid == NOBODY


@pytest.mark.usefixtures("lacking")
def test_a_tree_of_several_users_is_named_and_runs_on(denied, trees, images):
    mixed = trees.start(MIXED)
    with pytest.raises(NotImaged) as caught:
        dump(denied, mixed.pid, images)
    assert caught.value.cause is Cause.OTHER_USER
    assert "CAP_SYS_RESOURCE" in str(caught.value)
    states = {one.state for one in (table.look(mixed.pid), *table.descendants(mixed.pid))}
    assert states <= {"S", "R"}


@pytest.mark.usefixtures("lacking")
def test_without_setpriv_it_is_named(denied, trees, images, monkeypatch):
    found = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda name, **given: None if name == "setpriv" else found(name, **given)
    )
    child = trees.start("import signal; ready(); signal.pause()", **OTHER)
    with pytest.raises(NotImaged) as caught:
        dump(denied, child.pid, images)
    assert caught.value.cause is Cause.OTHER_USER


def test_it_becomes_nobody_where_it_need_not(trees, monkeypatch):
    other = trees.start("import signal; ready(); signal.pause()", **OTHER).pid
    own = trees.start("import signal; ready(); signal.pause()").pid
    held = owners._capabilities()
    monkeypatch.setattr(owners, "_capabilities", lambda: held | SYS_RESOURCE)
    assert owners.become([other]) == owners.Become()
    monkeypatch.setattr(owners, "_capabilities", lambda: held & ~SYS_RESOURCE)
    assert owners.become([own]) == owners.Become()
    assert owners.become([own, other]) == owners.Become()
    gone = 1 << 22  # no process has that number
    before, options = owners.become([other, gone])
    assert options == ("--unprivileged",)
    assert f"--reuid={NOBODY}" in before
    assert "+cap_24" not in ",".join(before)
