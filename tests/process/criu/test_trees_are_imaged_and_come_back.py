"""Real process trees: imaged by CRIU, ended, and brought back with what they were about."""

import os
import signal
import socket
import textwrap
import threading
from pathlib import Path

import pytest

from crabrt.process import table
from crabrt.process.criu import dump

pytestmark = pytest.mark.root

SERVER = """
    import hashlib, random, socket, sys
    memory = random.Random(7).randbytes(20 << 20)
    door = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    asked = 0
    ready()
    while True:
        guest, _ = door.accept()
        asked += 1
        guest.sendall(f"{asked} {hashlib.sha256(memory).hexdigest()}".encode())
        guest.close()
"""

SLEEPER = "import signal; ready(); signal.pause()"


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as door:
        return door.getsockname()[1]


def ask(port):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as asking:
        count, digest = asking.makefile().read().split()
    return int(count), digest


def test_a_server_comes_back_with_its_memory_and_answers_again(criu, trees, images, port):
    server = trees.start(SERVER, port)
    assert ask(port)[0] == 1
    dumped = dump(criu, server.pid, images)
    assert dumped.size_bytes > 20 << 20
    assert 0 < dumped.frozen_s < dumped.took_s
    second, digest = ask(port)  # it runs on
    assert second == 2
    trees.end(server.pid)
    assert trees.restore(criu, images) == server.pid
    assert ask(port) == (2, digest)  # again: of what came after the image it knows nothing
    assert table.look(server.pid).parent == os.getpid()


def test_a_tree_in_namespaces_of_its_own_comes_back(criu, trees, images, port):
    parent = """
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "def ready(): pass\\n" + sys.argv[2],
            sys.argv[1]])
        import time, socket
        while True:
            try:
                socket.create_connection(("127.0.0.1", int(sys.argv[1]))).close()
                break
            except OSError:
                time.sleep(0.01)
        ready()
        child.wait()
    """
    root = trees.inside(parent, port, textwrap.dedent(SERVER))
    count, digest = ask(port)
    dump(criu, root, images, own_namespace=True)
    trees.end(root)
    back = trees.restore(criu, images, own_namespace=True)
    assert ask(port) == (count + 1, digest)
    with open(f"/proc/{back}/status") as status:
        (numbers,) = (line.split()[1:] for line in status if line.startswith("NSpid:"))
    assert numbers == [str(back), "1"]
    assert len(table.descendants(back)) == 1


def test_an_established_connection_inside_of_a_tree_goes_on(criu, trees, until, images, tmp_path):
    talk = """
        import os, socket, sys, time
        door = socket.create_server(("127.0.0.1", 0))
        here = socket.create_connection(door.getsockname())
        there, _ = door.accept()
        count = 0
        while True:
            here.sendall(b"%8d" % count)
            count = int(there.recv(8)) + 1
            with open(sys.argv[1] + ".new", "w") as file: file.write(str(count))
            os.rename(sys.argv[1] + ".new", sys.argv[1])
            if count == 3: ready()
            time.sleep(0.01)
    """
    told = tmp_path / "count"
    talker = trees.start(talk, told)
    dump(criu, talker.pid, images)
    trees.end(talker.pid)
    at_end = int(told.read_text())
    told.unlink()
    trees.restore(criu, images)
    first = int(until(lambda: told.exists() and told.read_text()))
    assert 3 < first <= at_end + 1  # it goes on from the image
    until(lambda: int(told.read_text()) > at_end + 5)


def test_a_tree_whose_session_leader_is_elsewhere_comes_back(criu, trees, images):
    leader = trees.start("""
        import subprocess, time
        child = subprocess.Popen(["sleep", "1000"])
        ready()
        child.wait()
        time.sleep(1000)
    """)
    (child,) = table.children(leader.pid)
    assert table.look(child).session == leader.pid
    dump(criu, child, images)
    trees.end(child)
    assert trees.restore(criu, images) == child


def test_who_writes_to_a_pipe_out_of_the_tree_is_given_another(criu, trees, images):
    count = """
        import itertools, time
        ready()
        for n in itertools.count():
            print(n, flush=True)
            time.sleep(0.01)
    """
    reading, writing = os.pipe()
    resource = os.readlink(f"/proc/self/fd/{writing}")
    child = trees.start(count, stdout=writing)
    os.read(reading, 1)
    dump(criu, child.pid, images)
    trees.end(child.pid)
    os.close(writing)
    before = b""
    while part := os.read(reading, 1 << 16):
        before += part
    os.close(reading)
    reading, writing = os.pipe()
    trees.restore(criu, images, inherit=[(writing, resource)])
    os.close(writing)
    first = int(os.read(reading, 1 << 16).split()[0])
    os.close(reading)
    assert 0 < first <= int(before.split()[-1]) + 1


def test_without_another_pipe_it_writes_into_a_broken_one(criu, trees, images):
    reading, writing = os.pipe()
    code = "import os, time; ready()\nwhile True: time.sleep(0.01); os.write(1, b'.')"
    child = trees.start(code, stdout=writing)
    dump(criu, child.pid, images)
    trees.end(child.pid)
    os.close(writing)
    os.close(reading)
    back = trees.restore(criu, images)
    _, status = os.waitpid(back, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert "BrokenPipeError" in (trees.top / "stderr").read_text()


def test_a_tree_that_was_stopped_is_stopped_again_until_it_is_told_to_go_on(
    criu, trees, until, images
):
    child = trees.start("import os, time\nif os.fork(): ready()\ntime.sleep(1000)")
    (below,) = until(lambda: table.children(child.pid))
    for pid in (child.pid, below):
        os.kill(pid, signal.SIGSTOP)
    until(lambda: {table.look(pid).state for pid in (child.pid, below)} == {"T"})
    dump(criu, child.pid, images)
    until(lambda: {table.look(pid).state for pid in (child.pid, below)} == {"T"})
    trees.end(child.pid)
    trees.restore(criu, images)
    until(lambda: {table.look(pid).state for pid in (child.pid, below)} == {"T"})
    for pid in (child.pid, below):
        os.kill(pid, signal.SIGCONT)
    until(lambda: {table.look(pid).state for pid in (child.pid, below)} == {"S"})


def test_a_dump_may_leave_the_tree_stopped(criu, trees, until, images):
    child = trees.start(SLEEPER)
    dump(criu, child.pid, images, leave="stopped")
    until(lambda: table.look(child.pid).state == "T")


ECHO = """
    import socket, sys
    door = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    ready()
    guest, _ = door.accept()
    while True: guest.sendall(guest.recv(1))
"""


@pytest.mark.parametrize("then", ["goes on", "is ended"])
def test_connections_of_a_tree_that_is_left_stopped_are_as_they_were(
    criu, trees, until, images, port, then
):
    server = trees.start(ECHO, port)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"1")
        assert client.recv(1) == b"1"
        dump(criu, server.pid, images, leave="stopped")
        until(lambda: table.look(server.pid).state == "T")
        if then == "goes on":
            os.kill(server.pid, signal.SIGCONT)
            client.sendall(b"2")
            assert client.recv(1) == b"2"
        else:
            trees.end(server.pid)
            assert client.recv(1) == b""


@pytest.fixture
def cgroup(until):
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    mounted = [line.split()[1] for line in mounts if line.split()[2] == "cgroup2"]
    if not mounted:
        pytest.skip("kernel: no cgroup of version 2 is mounted")
    path = Path(mounted[0], f"crab-test-{os.getpid()}")
    path.mkdir()
    yield path
    (path / "cgroup.kill").write_text("1")
    events = path / "cgroup.events"
    until(lambda: "populated 0" in events.read_text())
    path.rmdir()


@pytest.mark.parametrize("frozen", ["0", "1"])
def test_a_cgroup_is_left_as_it_was(criu, trees, until, images, cgroup, frozen):
    child = trees.start(SLEEPER)
    (cgroup / "cgroup.procs").write_text(str(child.pid))
    (cgroup / "cgroup.freeze").write_text(frozen)
    events = cgroup / "cgroup.events"
    until(lambda: f"frozen {frozen}" in events.read_text())
    dump(criu, child.pid, images, freeze_cgroup=cgroup)
    assert f"frozen {frozen}" in events.read_text()


def test_files_that_are_only_written_to_may_have_grown(criu, trees, until, images, tmp_path):
    write = """
        import os, sys, time
        log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(log, b"before\\n")
        ready()
        while not os.path.exists(sys.argv[2]): time.sleep(0.01)
        os.write(log, b"after\\n")
        time.sleep(1000)
    """
    log, go = tmp_path / "log", tmp_path / "go"
    child = trees.start(write, log, go)
    dump(criu, child.pid, images)
    trees.end(child.pid)
    with open(log, "a") as file:
        file.write("meanwhile\n")
    trees.restore(criu, images, grown=[str(log)])
    go.touch()
    until(lambda: log.read_text() == "before\nmeanwhile\nafter\n")


def test_threads_that_restore_at_once_leave_nothing_open(criu, trees, tmp_path):
    children = [trees.start(SLEEPER) for _ in range(3)]
    for child in children:
        dump(criu, child.pid, tmp_path / str(child.pid))
        trees.end(child.pid)
    before = sorted(os.listdir("/proc/self/fd"))
    back = []
    threads = [
        threading.Thread(
            target=lambda pid=child.pid: back.append(trees.restore(criu, tmp_path / str(pid)))
        )
        for child in children
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(back) == sorted(child.pid for child in children)
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert {table.look(pid).parent for pid in back} == {os.getpid()}
