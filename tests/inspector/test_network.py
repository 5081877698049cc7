"""What is seen of the network: real processes, real sockets, and a world that never leaves here.

The world is an address on the loopback device of a network namespace of its own: nothing is sent to
anybody else.
"""

import contextlib
import ctypes
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from crabrt.inspector.network import (
    Interval,
    UnwatchedNetwork,
    WatchedNetwork,
    Where,
    kernel,
)
from crabrt.inspector.network.held import Held, held_by, own_connections
from crabrt.inspector.network.observer import AutoNetwork
from crabrt.inspector.network.opening import EVENTS_MOST, check_descriptors
from crabrt.inspector.network.ring import Ring
from crabrt.inspector.watch.errors import Reason, Unwatchable
from crabrt.inspector.watch.meeting import Meeting
from crabrt.process import sockets

MADE = """
ip link set lo up
ip addr add 203.0.113.9/32 dev lo
ip addr add 2001:db8::9/128 dev lo nodad
exec "$@"
"""
WORLD = ("unshare", "-n", "sh", "-c", MADE, "world")

SERVED = """
import socket, os, sys
listening = socket.socket()
listening.bind(("0.0.0.0", 4430))
listening.listen()
def tcp(): return socket.create_connection(("203.0.113.9", 4430))
def udp(family=socket.AF_INET): return socket.socket(family, socket.SOCK_DGRAM)
"""

URING = """
import ctypes, mmap, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
params = ctypes.create_string_buffer(120)
ring = libc.syscall(425, 4, params)
assert ring >= 0, ctypes.get_errno()
features = struct.unpack_from("=10I", params, 40)
head, tail, mask, entries, flags, dropped, array = features[:7]
sq = mmap.mmap(ring, 4096, offset=0)
sqes = mmap.mmap(ring, 4096, offset=0x10000000)
sock = socket.socket()
address = ctypes.create_string_buffer(
    struct.pack("=H", socket.AF_INET) + struct.pack("!H", 4430)
    + socket.inet_aton("203.0.113.9") + bytes(8))
# opcode CONNECT, IOSQE_ASYNC: a thread of the kernel's does it
struct.pack_into("=BBHiQQ", sqes, 0, 16, int(sys.argv[1]), 0, sock.fileno(), 16,
                 ctypes.addressof(address))
struct.pack_into("=I", sq, array, 0)
struct.pack_into("=I", sq, tail, 1)
assert libc.syscall(426, ring, 1, 1, 1, None, 0) == 1, ctypes.get_errno()
assert sock.getpeername() == ("203.0.113.9", 4430)
"""


@pytest.fixture
def watched():
    try:
        made = Watching(WatchedNetwork())
    except Unwatchable as error:
        if error.reason is Reason.KERNEL:
            pytest.skip(f"kernel: {error}")
        raise
    yield made
    made.network.close()


class Watching:
    """A watched network, and the moment since which it is asked."""

    def __init__(self, network):
        self.network = network
        self.since = time.monotonic_ns()

    def look(self, **asked):
        return self.network.look(Interval(self.since, time.monotonic_ns(), **asked))

    def during(self, *program, **asked):
        """What is seen while a program runs in the world; it ends well."""
        subprocess.run([*WORLD, *program], check=True)
        return self.look(**asked)

    def python(self, text, *arguments, **asked):
        return self.during(sys.executable, "-c", SERVED + text, *arguments, **asked)


def targets(network):
    return [one.target for one in network.connections]


@pytest.mark.root
def test_a_quiet_process_connects_to_nobody(watched):
    seen = watched.during("true", local=True)
    assert seen.watched
    assert seen.connections == seen.kept == ()
    assert seen.lost is None
    assert seen.silent


@pytest.mark.root
def test_a_tcp_connection_of_a_process_that_has_ended_is_told_with_its_name(watched):
    seen = watched.python("tcp()")
    (one,) = seen.connections
    assert (one.protocol, one.address, one.port) == ("tcp", "203.0.113.9", 4430)
    assert one.command.startswith("python")
    assert not os.path.exists(f"/proc/{one.pid}")
    assert one.where is Where.WORLD
    assert not seen.silent


@pytest.mark.root
def test_a_daemon_that_left_its_family_is_followed(watched):
    seen = watched.python(
        "if os.fork() == 0:\n"
        " os.setsid()\n"
        " if os.fork() == 0:\n"
        "  os.environ.clear(); tcp(); os._exit(0)\n"
        " os._exit(0)\n"
        "listening.accept()"
    )
    assert targets(seen) == ["203.0.113.9:4430"]


@pytest.mark.root
@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ('udp().sendto(b"x", ("203.0.113.9", 53))', "203.0.113.9:53/udp"),
        ('udp().connect(("203.0.113.9", 53))', "203.0.113.9:53/udp"),
        ('udp().sendmsg([b"x"], [], 0, ("203.0.113.9", 53))', "203.0.113.9:53/udp"),
        ('udp(socket.AF_INET6).sendto(b"x", ("2001:db8::9", 53))', "[2001:db8::9]:53/udp"),
        ('udp(socket.AF_INET6).sendto(b"x", ("::ffff:203.0.113.9", 53))', "203.0.113.9:53/udp"),
        ('udp().sendto(b"x", ("127.0.0.1", 53))', "127.0.0.1:53/udp"),
        ("socket.create_connection(('127.0.0.1', 4430))", "127.0.0.1:4430"),
    ],
)
def test_every_way_to_send_is_seen(watched, sent, told):
    seen = watched.python(sent)
    assert targets(seen) == [told]
    assert bool(seen.world) == ("127." not in told)


@pytest.mark.root
def test_what_nobody_can_be_reached_by_is_no_connection(watched):
    seen = watched.python(
        "try: socket.create_connection(('198.51.100.1', 80))\n"
        "except OSError: sys.exit(0)\n"
        "sys.exit(1)"
    )
    assert seen.connections == ()


@pytest.mark.root
@pytest.mark.parametrize("flags", ["0", "16"])
def test_a_connection_by_io_uring_is_seen(watched, flags):
    libc = ctypes.CDLL(None, use_errno=True)
    ring = libc.syscall(425, 4, ctypes.create_string_buffer(120))
    if ring < 0:
        pytest.skip(f"kernel: no io_uring: {os.strerror(ctypes.get_errno())}")
    os.close(ring)
    assert watched.network.sharpen()
    seen = watched.python(URING, flags)
    assert "203.0.113.9:4430" in targets(seen)
    assert not seen.silent


# -- AF_UNIX -----------------------------------------------------------------------------------


@pytest.mark.root
def test_local_sockets_are_seen_while_somebody_looks_closer(watched, tmp_path):
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "s"))
    listening.listen()
    knock = f"socket.socket(socket.AF_UNIX).connect({str(tmp_path / 's')!r})"
    assert targets(watched.python(knock)) == []
    assert watched.network.sharpen()
    seen = watched.python(knock, local=True)
    assert targets(seen) == [str(tmp_path / "s")]
    assert seen.world == ()
    assert not seen.silent
    watched.network.blunt()
    watched.since = time.monotonic_ns()
    assert targets(watched.python(knock)) == []
    listening.close()


@pytest.mark.root
def test_local_sockets_that_refuse_or_only_look_up_names_are_no_connection(watched, tmp_path):
    assert watched.network.sharpen()
    seen = watched.python(
        "for path in sys.argv[1], '/run/nscd/socket', '/dev/log':\n"
        " try: socket.socket(socket.AF_UNIX).connect(path)\n"
        " except OSError: pass",
        str(tmp_path / "absent"),
        local=True,
    )
    assert seen.silent


@pytest.mark.root
def test_services_that_look_up_names_and_log_are_no_connection(watched, tmp_path, monkeypatch):
    monkeypatch.setattr("crabrt.inspector.network.reading.HARMLESS", (f"{tmp_path}/names/",))
    assert watched.network.sharpen()
    seen = watched.python(
        "import os\n"
        "for path in sys.argv[1:]:\n"
        " os.mkdir(os.path.dirname(path))\n"
        " s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen()\n"
        " socket.socket(socket.AF_UNIX).connect(path)",
        f"{tmp_path}/names/s",
        f"{tmp_path}/other/s",
    )
    assert targets(seen) == [f"{tmp_path}/other/s"]


@pytest.mark.root
def test_it_looks_closer_until_the_last_who_asked_is_done(watched):
    knock = (
        "s = socket.socket(socket.AF_UNIX); s.bind('\\0crab'); s.listen()\n"
        "socket.socket(socket.AF_UNIX).connect('\\0crab')"
    )
    assert watched.network.sharpen()
    assert watched.network.sharpen()
    watched.network.blunt()
    assert targets(watched.python(knock)) == ["@crab"]


@pytest.mark.root
def test_a_process_that_is_older_than_the_turn_leaves_it_certain(watched):
    idle = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    try:
        born = int(Path(f"/proc/{idle.pid}/stat").read_text().rpartition(")")[2].split()[19])
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
        while time.clock_gettime(time.CLOCK_BOOTTIME) <= (born + 2) * tick_s:
            os.sched_yield()  # the kernel tells births by ticks
        watched.since = time.monotonic_ns()
        assert watched.look(local=True).silent
        watched.since -= 60_000_000_000
        assert not watched.look(local=True).silent
    finally:
        idle.communicate()


@pytest.mark.root
def test_an_abstract_socket_has_a_name(watched):
    assert watched.network.sharpen()
    seen = watched.python(
        "s = socket.socket(socket.AF_UNIX); s.bind('\\0crab'); s.listen()\n"
        "socket.socket(socket.AF_UNIX).connect('\\0crab')"
    )
    assert targets(seen) == ["@crab"]


# -- the loop's own process --------------------------------------------------------------------


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def connect(port):
    socket.create_connection(("127.0.0.1", port)).close()


@pytest.mark.root
def test_the_loops_own_connections_count_only_while_a_tool_runs(watched, port):
    connect(port)
    now = time.monotonic_ns()
    assert targets(watched.look()) == []
    assert targets(watched.look(tools=((now, now + 1),))) == []
    running = ((watched.since, now),)
    seen = watched.look(tools=running)
    assert targets(seen) == [f"127.0.0.1:{port}"]
    assert seen.connections[0].own
    unsure = watched.look(tools=running, models=running, local=True)
    assert targets(unsure) == []
    assert unsure.unsure
    assert not unsure.silent


@pytest.mark.root
def test_threads_begun_before_and_after_are_watched(port):
    go, done = threading.Event(), threading.Event()
    early = threading.Thread(target=lambda: (go.wait(), connect(port), done.set()))
    early.start()
    network = WatchedNetwork()
    since = time.monotonic_ns()
    go.set()
    done.wait()
    early.join()
    late = threading.Thread(target=lambda: socket.create_connection(("127.0.0.1", port)).close())
    late.start()
    late.join()
    now = time.monotonic_ns()
    seen = network.look(Interval(since, now, tools=((since, now),)))
    network.close()
    assert targets(seen) == [f"127.0.0.1:{port}"]
    assert len([one for one in network._seen if one.time_ns >= since]) >= 2


@pytest.mark.root
def test_a_tool_that_ran_before_it_was_opened_makes_the_turn_unknown(watched):
    seen = watched.look(tools=((1, 2),))
    assert seen.lost == "a tool ran before the network was watched"


# -- what stays open ---------------------------------------------------------------------------


@pytest.mark.root
def test_a_connection_that_stays_open_is_kept_and_then_is_not(watched):
    held = subprocess.Popen(
        [*WORLD, sys.executable, "-c", SERVED + "kept = tcp(); print(1, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert held.stdout.readline() == b"1\n"
    first = watched.look()
    assert targets(first) == ["203.0.113.9:4430"]
    assert first.kept == ()
    watched.since = time.monotonic_ns()
    seen = watched.look(local=True)
    assert seen.connections == ()
    assert [one.target for one in seen.kept] == ["203.0.113.9:4430"]
    assert not seen.silent
    held.communicate(b"\n")
    assert watched.look().kept == ()


@pytest.mark.root
@pytest.mark.parametrize("holder", ["the loop", "nobody", "a child"])
def test_only_what_a_child_may_hold_is_kept(watched, monkeypatch, holder):
    assert watched.python("tcp()").world
    with socket.socket() as mine:
        inode = {"the loop": os.fstat(mine.fileno()).st_ino, "nobody": 0, "a child": 1}[holder]
        listed = sockets.Socket("tcp", "203.0.113.9", 4430, inode)
        monkeypatch.setattr(sockets, "connected_sockets", lambda _: [listed])
        watched.since = time.monotonic_ns()
        assert len(watched.look().kept) == (holder == "a child")


@pytest.mark.root
def test_connections_of_children_that_are_older_are_kept(port):
    program = SERVED + "kept = tcp(); print(1, flush=True); input()"
    held = subprocess.Popen(
        [*WORLD, sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    held.stdout.readline()
    network = WatchedNetwork()
    now = time.monotonic_ns()
    seen = network.look(Interval(now, now + 1))
    network.close()
    held.communicate(b"\n")
    assert [one.target for one in seen.kept] == ["203.0.113.9:4430"]


# -- what is used again ------------------------------------------------------------------------


@pytest.fixture
def pair(port):
    """A connection of this process, and the inode of its end."""
    with socket.create_connection(("127.0.0.1", port)) as one:
        yield one, os.fstat(one.fileno()).st_ino


def used_by(act):
    before = Held(own_connections())
    act()
    return before.may_have_sent()


def test_what_goes_through_an_open_connection_is_counted(pair):
    one, inode = pair
    assert own_connections()[inode] == 0
    assert not used_by(lambda: None)
    assert used_by(lambda: one.send(b"x"))
    assert own_connections()[inode] == 1
    assert used_by(one.close)  # what it sent before, nobody can tell


def test_what_waits_to_be_sent_is_counted(pair):
    one, inode = pair
    one.setblocking(False)
    given = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            given += one.send(bytes(100_000))
    assert own_connections()[inode] == given


def test_a_child_that_sends_through_the_loops_connection_is_counted(pair):
    one, _ = pair
    program = "import os, sys; os.write(int(sys.argv[1]), b'x')"
    argv = [sys.executable, "-c", program, str(one.fileno())]
    assert used_by(lambda: subprocess.run(argv, pass_fds=[one.fileno()], check=True))


def test_connections_whose_bytes_nobody_counts_may_have_been_used(tmp_path, port):
    def known():
        return None not in own_connections().values()

    assert known()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        assert known()
        datagrams.connect(("127.0.0.1", port))
        assert not known()
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen()
        assert known()
        client.connect(str(tmp_path / "s"))
        assert not known()
    one, other = socket.socketpair()  # as event loops have: it leads nowhere
    assert known()
    one.close()
    other.close()


def test_the_connection_that_watches_are_shared_through_is_none(tmp_path):
    meeting = Meeting(tmp_path / "observers", "view")
    with meeting.listen(), meeting.connect(1.0) as asked:
        assert os.fstat(asked.fileno()).st_ino not in own_connections()
    meeting.close()


def test_connections_that_cannot_be_looked_at_may_have_been_used(pair, monkeypatch):
    before = Held(own_connections())

    def refuse(fd):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("crabrt.inspector.network.held.os.dup", refuse)
    assert held_by(os.getpid(), b"").may_have_sent()
    assert before.may_have_sent()


@pytest.mark.parametrize("holds", [True, False])
def test_a_connection_that_a_child_holds_may_have_been_used(port, holds):
    program = (
        "import socket, sys\n"
        "kept = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "if sys.argv[2] == 'False': kept.close()\n"
        "print(1, flush=True); input()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(port), str(holds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout.readline() == b"1\n"
    assert held_by(os.getpid(), b"").others == holds
    child.communicate(b"\n")


@pytest.mark.root
def test_a_connection_that_was_used_again_makes_it_uncertain(watched):
    assert watched.look(local=True).silent
    assert not watched.look(local=True, reused=True).silent


# -- what is not known -------------------------------------------------------------------------


@pytest.mark.root
def test_more_events_than_there_is_room_for_are_noticed(watched):
    send = 'u = udp()\nfor port in range(1, 3000): u.sendto(b"x", ("203.0.113.9", port))'
    seen = watched.python(send, local=True)
    assert seen.lost == "too many events for the kernel's buffer"
    assert 0 < len(seen.connections) < 3000
    assert not seen.silent
    watched.since = time.monotonic_ns()
    # The last records of the flood may still be on their way, and fill the buffer once more.
    assert any(watched.during("true").lost is None for _ in range(5))


@pytest.mark.parametrize(("records", "lost"), [(15, False), (16, True)])
def test_a_buffer_that_is_full_may_have_lost_the_last_records(records, lost):
    of_no_kind = (77).to_bytes(4, "little") + bytes(2) + (4096).to_bytes(2, "little") + bytes(4088)
    full = Ring.__new__(Ring)
    full.lost = False
    full._map = bytearray(mmap.PAGESIZE) + of_no_kind * 16
    full._map[1024:1032] = (4096 * records).to_bytes(8, "little")
    assert list(full.drain()) == []
    assert full.lost == lost
    assert list(full.drain()) == []
    assert not full.lost


@pytest.mark.root
def test_what_is_told_is_bounded(watched, monkeypatch):
    monkeypatch.setattr("crabrt.inspector.network.observer.CONNECTIONS_MOST", 3)
    seen = watched.python('u = udp()\nfor p in range(9): u.sendto(b"x", ("203.0.113.9", p + 1))')
    assert len(seen.connections) == 3
    assert seen.more == 6


@pytest.mark.root
def test_what_is_forgotten_makes_older_turns_unknown(watched, monkeypatch):
    monkeypatch.setattr("crabrt.inspector.network.observer._REMEMBERED_MOST", 3)
    seen = watched.python('u = udp()\nfor p in range(9): u.sendto(b"x", ("203.0.113.9", p + 1))')
    assert seen.lost == "too many connections to remember"


@pytest.mark.root
def test_a_failure_in_the_middle_is_unknown(watched, monkeypatch):
    def fail():
        raise OSError("gone")

    monkeypatch.setattr("crabrt.inspector.network.observer.processors", fail)
    seen = watched.look()
    assert not seen.watched
    assert seen.why_not == "it failed: gone"


@pytest.mark.root
def test_without_root_it_is_not_watched_and_says_why():
    program = (
        "import os\n"
        "from crabrt.inspector.network import AutoNetwork, Interval\n"
        "os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "network = AutoNetwork(b''); network.open()\n"
        "print(network.look(Interval(0, 1)).why_not, network.sharpen(), network.watched)"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert told.stdout == "it takes root (CAP_SYS_ADMIN and CAP_PERFMON) False False\n"


def test_what_is_off_says_so():
    assert UnwatchedNetwork("it is off").look(Interval(0, 1)).why_not == "it is off"
    assert AutoNetwork(b"").look(Interval(0, 1)).why_not == "it was not watched yet"


@pytest.mark.root
def test_too_few_descriptors_is_a_reason(monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (4, 4))
    with pytest.raises(Unwatchable, match="descriptors, more than a quarter") as refused:
        WatchedNetwork()
    assert refused.value.reason is Reason.LIMIT
    assert "ulimit -n" in refused.value.hint


@pytest.mark.parametrize(
    ("threads", "processors", "allowed", "names"),
    [
        (1, 2, 1024, True),
        (3, EVENTS_MOST // 3, 1 << 20, True),
        (3, EVENTS_MOST // 3 + 1, 1 << 20, False),
        (3, EVENTS_MOST // 2, 1 << 20, False),
        (16, 4, 512, False),
        (9, 8, resource.RLIM_INFINITY, True),
    ],
)
def test_names_are_had_where_events_and_descriptors_allow(
    monkeypatch, threads, processors, allowed, names
):
    monkeypatch.setattr("resource.getrlimit", lambda _: (allowed, allowed))
    assert check_descriptors(threads, processors) == names


def test_too_many_processors_are_a_reason_of_their_own(monkeypatch):
    """More descriptors would not help, and nobody is told that they would."""
    monkeypatch.setattr("resource.getrlimit", lambda _: (1 << 20, 1 << 20))
    with pytest.raises(Unwatchable, match=f"more than {EVENTS_MOST} slow it down") as refused:
        check_descriptors(1, EVENTS_MOST // 2 + 1)
    assert refused.value.reason is Reason.LIMIT
    assert refused.value.hint is None


def test_the_limit_of_descriptors_that_is_asked_for_is_enough(monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 1024))
    with pytest.raises(Unwatchable) as refused:
        check_descriptors(20, 16)
    enough = int(refused.value.hint.rpartition(" ")[2])
    monkeypatch.setattr("resource.getrlimit", lambda _: (enough, enough))
    assert check_descriptors(20, 16) is False
    monkeypatch.setattr("resource.getrlimit", lambda _: (enough - 1, enough - 1))
    with pytest.raises(Unwatchable):
        check_descriptors(20, 16)


# -- what is left behind, and many at once -----------------------------------------------------


@pytest.mark.root
def test_a_killed_process_leaves_nothing_behind(watched):
    program = (
        "import os, signal\n"
        "from crabrt.inspector.network import WatchedNetwork\n"
        "WatchedNetwork().sharpen()\n"
        "print(len(os.listdir('/proc/self/fd')), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    before = left_in_tracefs()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert int(done.stdout) > 6
    assert left_in_tracefs() == before


def left_in_tracefs():
    tracefs = kernel.open_tracefs()
    try:
        fd = os.open("instances", os.O_RDONLY, dir_fd=tracefs)
        names = os.listdir(fd)
        os.close(fd)
        fd = os.open("dynamic_events", os.O_RDONLY, dir_fd=tracefs)
        events = os.read(fd, mmap.PAGESIZE)
        os.close(fd)
        return names, events
    finally:
        os.close(tracefs)


@pytest.mark.root
def test_twenty_at_once_see_the_same(watched):
    others = [WatchedNetwork() for _ in range(20)]
    try:
        subprocess.run([*WORLD, sys.executable, "-c", SERVED + "tcp()"], check=True)
        asked = Interval(watched.since, time.monotonic_ns())
        assert {tuple(targets(one.look(asked))) for one in others} == {("203.0.113.9:4430",)}
        assert {one.look(asked).lost for one in others} == {None}
    finally:
        for one in others:
            one.close()


@pytest.mark.root
def test_processes_of_others_are_not_seen(watched):
    program = (
        "import subprocess, sys\n"
        "from crabrt.inspector.network import Interval, WatchedNetwork\n"
        "network = WatchedNetwork()\n"
        "print(1, flush=True); input()\n"
        "import time\n"
        "print(len(network.look(Interval(0, time.monotonic_ns())).connections))"
    )
    stranger = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert stranger.stdout.readline() == b"1\n"
    assert watched.python("tcp()").connections
    told, _ = stranger.communicate(b"\n")
    assert told == b"0\n"
