"""One group for all processes of a store, and what becomes of the others when its owner dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from crabrt.inspector.watch import wire

pytestmark = pytest.mark.root

PROGRAM = Path(__file__).with_name("watching.py")


def groups(*pids):
    """How many fanotify groups these processes have."""
    found = 0
    for pid in pids:
        for fd in os.listdir(f"/proc/{pid}/fdinfo"):
            with suppress(FileNotFoundError), open(f"/proc/{pid}/fdinfo/{fd}") as file:
                found += "fanotify flags" in file.read()
    return found


class Process:
    def __init__(self, workspace, home, patience_s=30):
        self.process = subprocess.Popen(
            [sys.executable, PROGRAM, workspace, home, str(patience_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.hear()["pid"]

    def hear(self):
        return json.loads(self.process.stdout.readline())

    def ask(self, command="drain"):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.hear()

    def kill(self):
        self.process.kill()
        assert self.process.wait() == -signal.SIGKILL

    def end(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(watched):
    """Start processes that watch the same workspace with the same store."""
    started = []

    def one(root=None, patience_s=30):
        made = Process(root or watched.root, watched.home / "observers", patience_s)
        started.append(made)
        return made

    yield one
    for process in started:
        process.end()


def stop(pid):
    """Stop it, and wait until all its threads have."""
    os.kill(pid, signal.SIGSTOP)
    while True:
        states = []
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/stat") as file:
                states.append(file.read().rpartition(")")[2].split()[0])
        if set(states) == {"T"}:
            return
        os.sched_yield()


def write(directory, name):
    (directory / name).write_bytes(b"x")


def test_processes_of_one_store_share_a_group(watched, start):
    processes = [start() for _ in range(4)]
    pids = [process.pid for process in processes]
    assert groups(*pids) == 1
    assert groups(pids[0]) == 1
    write(watched.root, "a")
    for process in processes:
        said = process.ask()
        assert (said["names"], said["unknown"]) == (["a"], None)


def test_each_is_told_of_its_own_workspace_only(watched, start):
    other = watched.base / "other"
    other.mkdir()
    one, two = start(), start(other)
    write(watched.root, "mine")
    write(other, "theirs")
    assert one.ask()["names"] == ["mine"]
    assert two.ask()["names"] == ["theirs"]
    assert groups(one.pid, two.pid) == 1


def test_a_drain_of_a_client_sees_all_that_happened_before_it(watched, start):
    start()
    client = start()
    for number in range(200):
        write(watched.root, f"{number}")
        assert client.ask()["names"] == [f"{number}"]


def test_an_answer_longer_than_a_packet_arrives_whole(watched, start):
    start()
    client = start()
    names = sorted(f"{number:05}-{'n' * 200}" for number in range(1000))
    for name in names:
        write(watched.root, name)
    assert len("".join(names)) > 2 * wire.PACKET_BYTES
    assert client.ask()["names"] == names


def test_watches_of_one_process_share_a_group(watched):
    before = groups(os.getpid())
    one, two = watched.open(), watched.open(watched.outside)
    assert groups(os.getpid()) == before + 1
    write(watched.root, "a")
    assert one.drain().places == {b"": frozenset({b"a"})}
    assert watched.nothing_in(two.drain())
    one.close()
    write(watched.outside, "b")
    assert two.drain().places == {b"": frozenset({b"b"})}
    two.close()
    two.close()
    assert groups(os.getpid()) == before
    assert two.drain().unknown == "the watch is closed"


def test_threads_may_drain_one_watch(watched):
    watch = watched.open()
    found = []

    def drain():
        found.extend(watch.drain() for _ in range(50))

    threads = [threading.Thread(target=drain) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(300):
        write(watched.root, f"{number}")
    for thread in threads:
        thread.join()
    found.append(watch.drain())
    names = {name for dirty in found for name in dirty.places.get(b"", ())}
    assert names == {b"%d" % number for number in range(300)}


def test_the_owners_death_is_unknown_once_and_another_takes_over(watched, start):
    owner, *clients = [start() for _ in range(4)]
    assert all(client.ask()["unknown"] is None for client in clients)
    owner.kill()
    write(watched.root, "while nobody watched")
    assert all("gone" in client.ask()["unknown"] for client in clients)
    write(watched.root, "afterwards")
    for client in clients:
        said = client.ask()
        assert (said["names"], said["unknown"]) == (["afterwards"], None)
    assert groups(*(client.pid for client in clients)) == 1


def test_what_happens_while_a_client_finds_another_owner_is_not_lost(watched, start):
    """The drain that says unknown is already watched: the scan that follows it misses nothing."""
    owner, client = start(), start()
    owner.kill()
    assert client.ask()["unknown"] is not None
    write(watched.root, "right after")
    assert client.ask()["names"] == ["right after"]


def test_an_owner_that_closes_goes_on_for_the_others(watched, start):
    owner, client = start(), start()
    owner.ask("close")
    write(watched.root, "a")
    said = client.ask()
    assert (said["names"], said["unknown"]) == (["a"], None)
    assert groups(owner.pid) == 1


def test_an_owner_without_clients_frees_its_group(watched, start):
    owner, client = start(), start()
    owner.ask("close")
    assert groups(owner.pid) == 1
    client.end()
    for _ in range(1000):
        if groups(owner.pid) == 0:
            break
        os.sched_yield()
        subprocess.run(["true"], check=True)
    assert groups(owner.pid) == 0


def test_an_owner_that_is_stopped_is_unknown_and_does_not_hold_others_up(watched, start):
    owner, client = start(), start(patience_s=0.2)
    stop(owner.pid)
    assert "does not answer" in client.ask()["unknown"]
    write(watched.root, "a")
    said = client.ask()
    assert (said["names"], said["unknown"]) == (["a"], None)
    assert groups(client.pid) == 1
    os.kill(owner.pid, signal.SIGCONT)
    assert owner.ask()["names"] == ["a"]


def test_a_forked_child_neither_watches_nor_keeps_a_dead_owners_group(watched, start):
    owner, client = start(), start()
    child = owner.ask("fork")
    assert "forked" in child["unknown"]
    try:
        assert groups(child["child"]) == 0
        assert owner.ask()["unknown"] is None
        owner.kill()
        assert "gone" in client.ask()["unknown"]
    finally:
        os.kill(child["child"], signal.SIGKILL)


def test_a_forked_child_of_a_client_does_not_disturb_it(watched, start):
    start()
    client = start()
    child = client.ask("fork")["child"]
    os.kill(child, signal.SIGKILL)
    write(watched.root, "a")
    said = client.ask()
    assert (said["names"], said["unknown"]) == (["a"], None)


def connect(watched):
    (path,) = (watched.home / "observers").glob("*.socket")
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.connect(os.fspath(path))
    return made


@pytest.mark.parametrize(
    "packet",
    [b"\xc1", b"", b"\x00" * 1000, wire.encode(wire.Ask()), wire.encode(wire.Join(1, b""))],
    ids=["no msgpack", "empty", "zeros", "asked first", "no directory"],
)
def test_nonsense_on_the_socket_ends_that_connection_only(watched, packet):
    watch = watched.open()
    with connect(watched) as connection:
        connection.send(packet)
        assert connection.recv(100) == b""
    write(watched.root, "a")
    assert watch.drain().places == {b"": frozenset({b"a"})}


def test_a_client_of_another_version_is_refused(watched):
    watched.open()
    with connect(watched) as connection:
        fd = os.open(watched.root, os.O_RDONLY)
        socket.send_fds(connection, [wire.encode(wire.Join(wire.VERSION + 1, b""))], [fd])
        os.close(fd)
        assert "version" in wire.receive(connection).refused


def test_a_client_that_does_not_read_holds_nobody_up(watched):
    watch = watched.open()
    with connect(watched) as connection:
        fd = os.open(watched.root, os.O_RDONLY)
        socket.send_fds(connection, [wire.encode(wire.Join(wire.VERSION, b""))], [fd])
        os.close(fd)
        wire.receive(connection)
        for number in range(3000):
            write(watched.root, f"{number:04}{'n' * 200}")
        connection.send(wire.encode(wire.Ask()))
        connection.send(wire.encode(wire.Ask()))
        for _ in range(20):
            assert watch.drain().unknown is None
        assert len(wire.receive(connection).dirty.places[b""]) == 3000


def test_another_user_cannot_reach_the_socket(watched):
    watched.open()
    (path,) = (watched.home / "observers").glob("*.socket")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    child = os.fork()
    if child == 0:
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        try:
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(os.fspath(path))
        except PermissionError:
            os._exit(77)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 77
