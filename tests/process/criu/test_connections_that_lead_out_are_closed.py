"""A restored tree reads the end of what led out of it, answers new clients, and sends nothing."""

import contextlib
import os
import socket
from pathlib import Path

import pytest

from crabrt.process import sockets
from crabrt.process.beside.network import Network
from crabrt.process.beside.room import Room
from crabrt.process.criu import NotRevived, connections, dump, growing, leading_out, wire
from crabrt.process.criu.mounts import Bind

pytestmark = pytest.mark.root

LIMIT_S = 20
SO_RCVBUFFORCE = 33
CLOSE_WAIT = b"08"

# One client after the other, each for as long as it stays.
KEEPS_ALIVE = """
    import socket, sys
    host, told = sys.argv[1:]
    if host == "both":
        door = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    else:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        door = socket.create_server((host, 0), family=family)
    with open(told + ".new", "w") as file: file.write(str(door.getsockname()[1]))
    os.rename(told + ".new", told)
    ready()
    count = 0
    while True:
        guest, _ = door.accept()
        with guest:
            while guest.recv(1):
                count += 1
                guest.sendall(b"%d" % count)
"""

EVENTS = """
    import asyncio, sys
    count = 0
    async def serve(reader, writer):
        global count
        count += 1
        while await reader.read(1):
            writer.write(b"%d" % count)
        count -= 1
        writer.close()
    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        with open(sys.argv[2] + ".new", "w") as file:
            file.write(str(server.sockets[0].getsockname()[1]))
        os.rename(sys.argv[2] + ".new", sys.argv[2])
        ready()
        await server.serve_forever()
    asyncio.run(main())
"""

# A worker with a connection to a database, which it asks at once, and whenever it is told to.
WORKER = """
    import socket, sys, time
    address, top = ("127.0.0.1", int(sys.argv[1])), sys.argv[2]
    def ask():
        base.sendall(b"?")
        return base.recv(1).decode()
    def tell():
        with open(top + "/said.new", "w") as file: file.write(" ".join(said))
        os.rename(top + "/said.new", top + "/said")
    base = socket.create_connection(address)
    ready()
    said = [ask()]
    tell()
    while True:
        while not os.path.exists(top + "/go"): time.sleep(0.005)
        os.unlink(top + "/go")
        try:
            said.append(ask())
        except OSError as error:
            said.append(type(error).__name__)
        if said[-1] in ("", "BrokenPipeError", "ConnectionResetError"):
            base = socket.create_connection(address)
            said.append(ask())
        tell()
"""

# Counts through a connection with itself, and has another one that leads out.
BOTH = """
    import socket, sys, time
    outside = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    door = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    here = socket.create_connection(("127.0.0.1", door.getsockname()[1]))
    there, _ = door.accept()
    outside.setblocking(False)
    count, end = 0, "open"
    ready()
    while True:
        here.sendall(b"%8d" % count)
        count = int(there.recv(8)) + 1
        try:
            end = "open" if outside.recv(1) else "over"
        except BlockingIOError:
            end = "open"
        with open(sys.argv[2] + ".new", "w") as file: file.write(f"{count} {end}")
        os.rename(sys.argv[2] + ".new", sys.argv[2])
        time.sleep(0.005)
"""


def asked(client):
    client.sendall(b"?")
    return client.recv(10)


def connected(port, host="127.0.0.1"):
    return socket.create_connection((host, port), timeout=LIMIT_S)


def shown(client):
    """The address of our end, as it is told of a process at the other one."""
    host, port, *_ = client.getsockname()
    return f"tcp [{host}]:{port}" if ":" in host else f"tcp {host}:{port}"


@pytest.fixture
def database():
    """A door; what came in is closed with it."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(LIMIT_S)
        yield door


@pytest.fixture
def worker(trees, tmp_path, database, until):
    """A worker that has been answered, and our end of its connection."""
    child = trees.start(WORKER, database.getsockname()[1], tmp_path)
    with answered(database, b"1") as conversation:
        until((tmp_path / "said").exists)
        os.unlink(tmp_path / "said")
        yield child.pid, conversation


def answered(database, answer):
    """The next conversation, in which a question has been answered."""
    conversation = database.accept()[0]
    conversation.settimeout(LIMIT_S)
    answer_in(conversation, answer)
    return conversation


def answer_in(conversation, answer):
    assert conversation.recv(1) == b"?"
    conversation.sendall(answer)


@pytest.mark.parametrize(
    ("host", "client_host"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("both", "127.0.0.1")]
)
def test_a_server_that_waits_for_a_client_of_before_answers_new_ones(
    criu, trees, images, tmp_path, host, client_host
):
    if not socket.has_dualstack_ipv6() and host != "127.0.0.1":
        pytest.skip("kernel: no IPv6")
    server = trees.start(KEEPS_ALIVE, host, tmp_path / "port")
    port = int((tmp_path / "port").read_text())
    with connected(port, client_host) as old:
        assert asked(old) == b"1"
        dump(criu, server.pid, images)
        assert asked(old) == b"2"  # an image closes nothing
        assert leading_out(images) == (shown(old),)
        trees.end(server.pid)
        assert old.recv(1) == b""
        trees.restore(criu, images)
        with connected(port, client_host) as new:  # while the old one is still there
            assert asked(new) == b"2"


def test_a_server_that_waits_for_events_is_told_of_the_end(criu, trees, images, tmp_path, until):
    server = trees.start(EVENTS, "", tmp_path / "port")
    port = int((tmp_path / "port").read_text())
    with connected(port) as one, connected(port) as other:
        assert {asked(one), asked(other)} <= {b"1", b"2"}
        assert asked(one) == b"2"
        dump(criu, server.pid, images)
        trees.end(server.pid)
        trees.restore(criu, images)
        with connected(port) as new:
            until(lambda: asked(new) == b"1")  # both ends are news to it
        assert set(leading_out(images)) == {shown(one), shown(other)}


def test_a_worker_begins_a_new_conversation_with_a_database_that_lives(
    criu, trees, images, tmp_path, database, worker, until
):
    pid, conversation = worker
    dump(criu, pid, images)
    trees.end(pid)
    assert conversation.recv(1) == b""
    trees.restore(criu, images)
    (tmp_path / "go").touch()
    with answered(database, b"2"):
        until((tmp_path / "said").exists)
    first, end, second = (tmp_path / "said").read_text().split(" ")
    assert (first, second) == ("1", "2")
    assert end in {"", "BrokenPipeError"}


def test_an_image_of_a_restored_tree_is_as_good(
    criu, trees, images, tmp_path, database, worker, until
):
    pid, _ = worker
    later = tmp_path / "later"
    for directory in (images, later):
        dump(criu, pid, directory)
        trees.end(pid)
        assert trees.restore(criu, directory) == pid
    assert leading_out(later) == ()
    (tmp_path / "go").touch()
    with answered(database, b"2"):
        until((tmp_path / "said").exists)


def test_a_copy_leaves_the_conversation_of_the_original_alone(
    criu, trees, images, tmp_path, database, until
):
    """In the same network: the copy cannot have the address that the original talks from."""
    new, old = tmp_path / "new", tmp_path / "old"
    for directory in (new, old):
        directory.mkdir()
    original = trees.start(WORKER, database.getsockname()[1], old)
    conversation = answered(database, b"1")
    until((old / "said").exists)
    dump(criu, original.pid, images)
    room = Room(Network(), [Bind(bytes(new), bytes(old))])
    try:
        room.restore(criu, images)
        (new / "go").touch()
        with answered(database, b"3"):
            until((new / "said").exists)
        (old / "go").touch()
        with conversation:
            answer_in(conversation, b"2")
            until(lambda: (old / "said").read_text() == "1 2")
    finally:
        room.end()


def packets(capture):
    """From which port to which TCP packets have gone since."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            data = capture.recv(1 << 16)
            if data[9] == socket.IPPROTO_TCP:
                at = (data[0] & 15) * 4
                found.append(tuple(int.from_bytes(data[at + n : at + n + 2]) for n in (0, 2)))
    return found


def test_nobody_is_sent_anything(criu, trees, images, tmp_path):
    server = trees.start(KEEPS_ALIVE, "127.0.0.1", tmp_path / "port")
    port = int((tmp_path / "port").read_text())
    ethertype = socket.htons(0x0800)
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, ethertype) as capture,
        connected(port) as old,
    ):
        capture.bind(("lo", 0x0800))
        capture.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        capture.setblocking(False)
        theirs = port, old.getsockname()[1]
        assert asked(old) == b"1"
        dump(criu, server.pid, images)
        trees.end(server.pid)
        assert old.recv(1) == b""
        assert theirs in packets(capture)
        trees.restore(criu, images)
        with connected(port) as new:
            assert asked(new) == b"2"  # so it has met the end of the old one
            seen = packets(capture)
            assert (port, new.getsockname()[1]) in seen
        assert theirs not in seen


def test_what_is_inside_goes_on_beside_what_is_closed(
    criu, trees, images, tmp_path, database, until
):
    told = tmp_path / "told"
    talker = trees.start(BOTH, database.getsockname()[1], told)
    with database.accept()[0] as outer:
        until(lambda: told.exists() and int(told.read_text().split()[0]) > 3)
        dump(criu, talker.pid, images)
        assert leading_out(images) == (shown(outer),)
        trees.end(talker.pid)
        count, end = told.read_text().split()
        assert end == "open"
        told.unlink()
        trees.restore(criu, images)
        until(lambda: told.exists() and int(told.read_text().split()[0]) > int(count) + 3)
        assert told.read_text().split()[1] == "over"


def test_who_was_left_by_the_other_end_has_lost_nothing(criu, trees, images, database, until):
    code = """
        import signal, socket, sys
        left = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        ready()
        signal.pause()
    """
    child = trees.start(code, database.getsockname()[1])
    database.accept()[0].close()
    (inode,) = sockets.held_inodes(child.pid)
    table, left = Path(f"/proc/{child.pid}/net/tcp"), [CLOSE_WAIT, b"%d" % inode]
    until(lambda: left in [line.split()[3:10:6] for line in table.read_bytes().splitlines()])
    dump(criu, child.pid, images)
    assert leading_out(images) == ()
    assert growing.FILE in connections.changed(images)  # closed it comes back, all the same


def test_a_list_of_files_that_is_none_is_damaged(tmp_path):
    for data in (b"", b"\0" * 40, wire.image([wire.bytes_field(4, b"\xff")], wire.FILES_MAGIC)):
        (tmp_path / growing.FILE).write_bytes(data)
        for look in (connections.changed, leading_out):
            with pytest.raises(NotRevived, match="list of files"):
                look(tmp_path)
    os.unlink(tmp_path / growing.FILE)
    with pytest.raises(NotRevived, match="list of files"):
        leading_out(tmp_path)
