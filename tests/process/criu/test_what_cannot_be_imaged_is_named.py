"""Each obstacle, staged for real: its cause, and that the tree runs on unharmed."""

import os
import signal
import socket
import subprocess

import pytest

from crabrt.errors import UsageError
from crabrt.process import table
from crabrt.process.criu import Cause, Criu, Leads, NotImaged, dump, outside
from crabrt.process.criu.causes import explain
from crabrt.testing.filesystems import file_system

pytestmark = pytest.mark.root

IO_URING = """
    import ctypes, signal
    ring = ctypes.CDLL(None).syscall(425, 4, (ctypes.c_char * 120)())
    assert ring >= 0, "io_uring"
    ready()
    signal.pause()
"""
DEVICE = "import os, signal; os.open('/dev/fuse', os.O_RDWR); ready(); signal.pause()"
GHOST = """
    import signal, sys, tempfile
    file = tempfile.TemporaryFile(dir=sys.argv[1])
    file.write(bytes(range(256)) * 8192)
    file.flush()
    ready()
    signal.pause()
"""
SHARED = """
    import ctypes, signal
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    number = libc.shmget(0, 4096, 0o1600)
    libc.shmat(number, None, 0)
    libc.shmctl(number, 0, None)
    ready()
    signal.pause()
"""
USER_NAMESPACE = """
    import ctypes, signal
    assert ctypes.CDLL(None).unshare(0x10000000) == 0
    ready()
    signal.pause()
"""
SLEEPER = "import signal; ready(); signal.pause()"


def refused(criu, pid, images, cause, **given):
    """The tree cannot be imaged for `cause`; nothing is left of the attempt."""
    before = [one.identity for one in (table.look(pid), *table.descendants(pid))]
    with pytest.raises(NotImaged) as caught:
        dump(criu, pid, images, **given)
    error = caught.value
    assert error.cause is cause, (error, error.log)
    assert error.lost == ()
    after = [table.look(pid), *table.descendants(pid)]
    assert [one.identity for one in after] == before
    assert {one.state for one in after} <= {"S", "R"}
    assert list(images.iterdir()) == []
    return error


@pytest.mark.parametrize(
    ("code", "cause", "told"),
    [
        (IO_URING, Cause.IO_URING, "io_uring"),
        (DEVICE, Cause.DEVICE, "chr 10:229"),
        (GHOST, Cause.GHOST_FILE, "deleted file"),
        (SHARED, Cause.SHARED_MEMORY, "System V"),
        (USER_NAMESPACE, Cause.NAMESPACE, "user namespace"),
    ],
)
def test_the_cause_is_told_and_the_tree_runs_on(criu, trees, images, tmp_path, code, cause, told):
    child = trees.start(code, tmp_path)
    error = refused(criu, child.pid, images, cause, ghost_limit_bytes=1 << 20)
    assert told in str(error)
    assert error.log


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Can't dump file 7 of that type [20666] (chr 195:255)", "a GPU is in use (NVIDIA's"),
        ("Can't dump file 5 of that type [20660] (chr 226:128)", "a GPU is in use (/dev/dri"),
        ("Can't dump file 6 of that type [20666] (chr 239:0)", "special file is open (chr 239:0)"),
    ],
    ids=["nvidia", "dri", "kfd"],
)
def test_an_open_gpu_is_named_by_its_number(said, told):
    """As files-ext.c of CRIU has it: no machine that runs this has one."""
    log = [
        "(00.004211) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: EPERM",
        f"(00.041730) Error (criu/files-ext.c:98): {said}",
        "(00.041811) ----------------------------------------",
        "(00.041955) Error (criu/cr-dump.c:1674): Dump files (pid: 4711) failed with -1",
        "(00.052101) Error (criu/cr-dump.c:2098): Dumping FAILED.",
    ]
    reason = explain(log)
    assert reason.cause is Cause.DEVICE
    assert told in reason.text


def test_the_mapped_memory_of_a_gpu_is_named():
    """As proc_parse.c of CRIU has it, which looks at mappings before it looks at files."""
    log = [
        "Error (criu/proc_parse.c:663): Can't handle non-regular mapping on 4711's map 7f2a4000000",
        "(00.031260) Error (criu/cr-dump.c:1546): Collect mappings (pid: 4711) failed with -1",
        "(00.040034) Error (criu/cr-dump.c:2098): Dumping FAILED.",
    ]
    reason = explain(log)
    assert (reason.cause, reason.pid) == (Cause.DEVICE, 4711)
    assert "process 4711 has mapped a device" in reason.text


def test_a_deleted_file_within_the_limit_is_part_of_the_image(criu, trees, images, tmp_path):
    child = trees.start(GHOST, tmp_path)
    assert dump(criu, child.pid, images, ghost_limit_bytes=4 << 20).size_bytes > 2 << 20


def test_a_unix_socket_to_somebody_else_is_an_obstacle(criu, trees, images):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = trees.start(SLEEPER, pass_fds=[theirs.fileno()])
        theirs.close()
        refused(criu, child.pid, images, Cause.UNIX_SOCKET)
        (found,) = outside(child.pid)
        assert (found.leads, found.imageable) == (Leads.UNIX, False)


def test_a_terminal_of_somebody_else_is_an_obstacle(criu, trees, images):
    master, slave = os.openpty()
    child = trees.start(SLEEPER, stdin=slave)
    os.close(slave)
    refused(criu, child.pid, images, Cause.TTY)
    (found,) = outside(child.pid)
    assert (found.fd, found.leads, found.imageable) == (0, Leads.TTY, False)
    os.close(master)


def test_a_process_that_somebody_traces_is_an_obstacle(criu, trees, images):
    child = trees.start(SLEEPER)
    trace = """
        import ctypes, signal, sys
        libc = ctypes.CDLL(None)
        libc.ptrace.argtypes = [ctypes.c_long] * 4
        assert libc.ptrace(0x4206, int(sys.argv[1]), 0, 0) == 0  # PTRACE_SEIZE
        ready()
        signal.pause()
    """
    trees.start(trace, child.pid)
    error = refused(criu, child.pid, images, Cause.TRACED)
    assert str(child.pid) in str(error)


def test_a_full_disk_is_told_and_nothing_stays_on_it(criu, trees):
    child = trees.start("import signal\nx = b'crab' * (4 << 20)\nready()\nsignal.pause()")
    with file_system("tmpfs") as small:
        space = os.statvfs(small)
        with open(small / "rest", "wb") as rest:
            os.posix_fallocate(rest.fileno(), 0, space.f_bavail * space.f_frsize - (1 << 20))
        refused(criu, child.pid, small / "images", Cause.NO_SPACE)
        assert os.statvfs(small).f_bavail * space.f_frsize >= (1 << 20) - (1 << 16)


def test_a_process_that_is_no_more_is_told(criu, trees, images):
    child = trees.start(SLEEPER)
    trees.end(child.pid)
    with pytest.raises(NotImaged) as caught:
        dump(criu, child.pid, images)
    assert caught.value.cause is Cause.GONE


def test_images_go_into_an_empty_directory_only(criu, trees, images):
    child = trees.start(SLEEPER)
    images.mkdir()
    (images / "mine").touch()
    with pytest.raises(UsageError, match="empty"):
        dump(criu, child.pid, images)
    assert (images / "mine").exists()


def test_what_is_no_cgroup_is_refused(criu, trees, images, tmp_path):
    child = trees.start(SLEEPER)
    with pytest.raises(UsageError, match="cgroup"):
        dump(criu, child.pid, images, freeze_cgroup=tmp_path)


def test_a_program_that_never_ends_is_ended_with_all_it_started(trees, until, images, tmp_path):
    program = tmp_path / "criu"
    program.write_text(f"#!/bin/sh\nsleep 1000 &\necho $! > {tmp_path}/below\nwait\n")
    program.chmod(0o755)
    child = trees.start(SLEEPER)
    error = refused(Criu(program, (4, 2, 0)), child.pid, images, Cause.TIME_LIMIT, limit_s=0.3)
    assert "CRIU was not done after" in str(error)
    below = int((tmp_path / "below").read_text())
    until(lambda: (one := table.look(below)) is None or one.ended)


def test_a_program_that_is_not_there_is_told(trees, images, tmp_path):
    child = trees.start(SLEEPER)
    with pytest.raises(NotImaged, match="No such file"):
        dump(Criu(tmp_path / "criu", (4, 2, 0)), child.pid, images)


def test_a_pipe_that_nobody_can_write_into_loses_nothing(criu, trees, images, tmp_path, until):
    told = tmp_path / "told"
    code = """
        import os, signal, sys
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        ready()
        signal.sigwait({signal.SIGUSR1})
        with open(sys.argv[1], "w") as file:
            file.write(sys.stdin.read() + ", and no more")
        signal.pause()
    """
    reads, writes = os.pipe()
    child = trees.start(code, told, stdin=reads)
    os.close(reads)
    os.write(writes, b"some")
    held = lambda: [(one.leads, one.fd, one.writes) for one in outside(child.pid)]  # noqa: E731
    until(lambda: held() == [(Leads.PIPE, 0, False)])  # who said that it is ready closes that pipe
    os.close(writes)
    assert held() == []
    dump(criu, child.pid, images)
    trees.end(child.pid)
    assert trees.restore(criu, images) == child.pid
    os.kill(child.pid, signal.SIGUSR1)
    until(lambda: told.exists() and told.read_text() == "some, and no more")


def test_pipes_and_connections_out_of_the_tree_are_listed(trees, until):
    door = socket.create_server(("127.0.0.1", 0))
    code = """
        import os, signal, socket, sys
        there = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        door = socket.create_server(("127.0.0.1", 0))
        here = socket.create_connection(door.getsockname())
        guest, _ = door.accept()
        pair = socket.socketpair()
        reading, writing = os.pipe()
        ready()
        os.close(reading if os.fork() else writing)
        signal.pause()
    """
    with door:
        child = trees.start(code, door.getsockname()[1], stdout=subprocess.PIPE)
        guest, _ = door.accept()
        with guest:
            (below,) = until(lambda: table.children(child.pid))

            def found():
                return {(one.pid, one.leads, one.fd) for one in outside(child.pid)}

            connection = {fd for _, leads, fd in found() if leads is Leads.TCP}
            assert len(connection) == 1
            expected = {
                (pid, leads, fd)
                for pid in (child.pid, below)
                for leads, fd in ((Leads.PIPE, 1), (Leads.TCP, *connection))
            }
            until(lambda: found() == expected)  # who said that it is ready closes that pipe
            assert all(one.imageable and one.writes for one in outside(child.pid))
