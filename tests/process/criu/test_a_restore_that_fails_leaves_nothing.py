"""Restores that cannot succeed: the cause is told, nothing is left of the tree, a retry works."""

import os
import signal
import socket
import threading

import pytest

from crabrt.process import table
from crabrt.process.criu import Cause, Criu, NotRevived, dump, restore, restoring

pytestmark = pytest.mark.root

SLEEPER = "import signal; ready(); signal.pause()"
SERVER = """
    import os, signal, socket, sys
    door = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    os.fork()
    ready()
    signal.pause()
"""
READER = "import signal, sys; file = open(sys.argv[1], 'rb+'); ready(); signal.pause()"


def refused(criu, pid, images, cause, **given):
    with pytest.raises(NotRevived) as caught:
        restore(criu, images, **given)
    assert caught.value.cause is cause, (caught.value, caught.value.log)
    return caught.value


def nothing_is_left(pid):
    assert table.look(pid) is None
    assert not [one for one in table.descendants(os.getpid()) if not one.ended]


def test_a_port_that_is_taken_is_told_and_free_again_it_succeeds(criu, trees, images):
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    server = trees.start(SERVER, port)
    dump(criu, server.pid, images)
    trees.end(server.pid)
    with socket.create_server(("127.0.0.1", port)):
        refused(criu, server.pid, images, Cause.PORT_IN_USE)
        nothing_is_left(server.pid)
    assert trees.restore(criu, images) == server.pid


def test_a_number_that_is_taken_is_told_with_the_program_that_has_it(criu, trees, images):
    child = trees.start(SLEEPER)
    dump(criu, child.pid, images)
    error = refused(criu, child.pid, images, Cause.PID_TAKEN)
    assert error.pid == child.pid
    assert "python" in str(error)
    assert table.look(child.pid).state in {"S", "R"}
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    error = refused(criu, child.pid, images, Cause.PID_TAKEN)
    assert f"process {os.getpid()} has not collected" in str(error)
    trees.end(child.pid)
    assert trees.restore(criu, images) == child.pid


SESSION = """
    import os, signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    ready()
    signal.sigwait({signal.SIGUSR1})
    if not os.fork():
        signal.pause()
"""


def left_in_its_session(criu, trees, images, until):
    """An image of a process whose number nobody has any more but a session; and who is in that."""
    child = trees.start(SESSION)
    dump(criu, child.pid, images)
    os.kill(child.pid, signal.SIGUSR1)
    until(lambda: table.look(child.pid).ended)
    (left,) = [one for one in table.descendants(os.getpid()) if one.session == child.pid != one.pid]
    os.waitpid(child.pid, 0)
    child.returncode = 0
    assert table.look(child.pid) is None
    return child.pid, left.pid


def test_a_number_that_only_a_session_has_is_told_with_who_is_in_that(
    criu, trees, images, until, monkeypatch
):
    monkeypatch.setattr(restoring, "_GIVEN_BACK_S", 0.5)
    pid, left = left_in_its_session(criu, trees, images, until)
    error = refused(criu, pid, images, Cause.PID_TAKEN)
    assert f"process {left} is in the session of that number" in str(error)
    assert table.look(left).state in {"S", "R"}


def test_a_number_that_is_given_back_late_is_waited_for(criu, trees, images, until, tmp_path):
    """As the kernel does it to those who end while the machine is busy."""
    pid, left = left_in_its_session(criu, trees, images, until)
    program, tried = tmp_path / "criu", tmp_path / "tried"
    program.write_text(
        f'#!/bin/sh\n{criu.program} "$@"; status=$?\n'
        f"[ $status = 0 ] || {{ echo >> {tried}; kill -9 {left}; }}\nexit $status\n"
    )
    program.chmod(0o755)
    collector = threading.Thread(target=os.waitpid, args=(left, 0))
    collector.start()
    assert restore(Criu(program, criu.version), images) == pid
    collector.join()
    assert tried.read_text() == "\n"  # it failed for that, once


def test_the_program_that_has_a_number_is_shown_without_secrets(criu, trees, images):
    child = trees.start(SLEEPER, "--key", "sk-" + "a1b2c3d4" * 4)
    dump(criu, child.pid, images)
    error = refused(criu, child.pid, images, Cause.PID_TAKEN)
    assert "--key [redacted]" in str(error)


def test_a_file_that_changed_or_is_gone_is_told_by_name(criu, trees, images, tmp_path):
    file = tmp_path / "data base"
    file.write_bytes(b"before")
    child = trees.start(READER, file)
    dump(criu, child.pid, images)
    trees.end(child.pid)
    file.write_bytes(b"before and after")
    error = refused(criu, child.pid, images, Cause.FILE_CHANGED, grown=[str(file)])  # it reads too
    assert f"{file} has 16 bytes now and had 6" in str(error)
    nothing_is_left(child.pid)
    file.unlink()
    error = refused(criu, child.pid, images, Cause.FILE_MISSING)
    assert f"{file} is gone" in str(error)
    nothing_is_left(child.pid)
    file.write_bytes(b"before")
    assert trees.restore(criu, images) == child.pid


@pytest.mark.parametrize("own", [False, True])
def test_images_that_are_cut_off_do_not_hang_and_leave_nothing(criu, trees, images, own):
    code = "import os, signal\nmemory = os.urandom(8 << 20)\nready()\nsignal.pause()"
    pid = trees.inside(code) if own else trees.start(code).pid
    dump(criu, pid, images, own_namespace=own)
    trees.end(pid)
    (pages,) = images.glob("pages-*.img")
    os.truncate(pages, 10 * 4096)
    with pytest.raises(NotRevived) as caught:
        restore(criu, images, own_namespace=own, limit_s=3)
    assert caught.value.cause in {Cause.TIME_LIMIT, Cause.DAMAGED_IMAGE, Cause.OTHER}
    nothing_is_left(pid)


@pytest.mark.parametrize("name", ["pstree.img", "inventory.img", "files.img", "core-*.img"])
def test_a_missing_or_damaged_image_is_told(criu, trees, images, name):
    child = trees.start(SLEEPER)
    dump(criu, child.pid, images)
    trees.end(child.pid)
    (path,) = images.glob(name)
    path.write_bytes(b"\0" * 40)
    refused(criu, child.pid, images, Cause.DAMAGED_IMAGE, limit_s=5)
    path.unlink()
    refused(criu, child.pid, images, Cause.DAMAGED_IMAGE, limit_s=5)
    nothing_is_left(child.pid)


def test_a_program_that_never_ends_is_ended(criu, trees, images, tmp_path):
    child = trees.start(SLEEPER)
    dump(criu, child.pid, images)
    trees.end(child.pid)
    program = tmp_path / "criu"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    refused(Criu(program, (4, 2, 0)), child.pid, images, Cause.TIME_LIMIT, limit_s=0.2)
    nothing_is_left(child.pid)


def test_what_is_passed_on_is_part_of_the_program_not_of_the_tree(criu, trees, images):
    reading, writing = os.pipe()
    child = trees.start(SLEEPER, stdout=writing)
    resource = os.readlink(f"/proc/self/fd/{writing}")
    dump(criu, child.pid, images)
    trees.end(child.pid)
    trees.restore(criu, images, inherit=[(writing, resource)])
    ours = os.stat(f"/proc/self/fd/{writing}").st_ino
    held = [
        os.stat(f"/proc/{child.pid}/fd/{fd}").st_ino for fd in os.listdir(f"/proc/{child.pid}/fd")
    ]
    assert held.count(ours) == 1  # as its standard output, and nothing else of ours
    os.close(reading)
    os.close(writing)
