"""What changes without an event is found by who holds it."""

import ctypes
import errno
import mmap
import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from crabrt.inspector.watch import grips
from crabrt.workspace import mappings, procfs

pytestmark = pytest.mark.root

KEEP = """
import mmap, os, sys
handle = os.open(sys.argv[1], os.O_RDWR)
mapping = mmap.mmap(handle, 0)
os.close(handle)
print("mapped", flush=True)
for line in sys.stdin:
    mapping[:8] = line[:8].encode()
    print("stored", flush=True)
"""


HIDE = """
import ctypes, mmap, os, sys
handle = os.open(sys.argv[1], os.O_RDWR)
mapping = mmap.mmap(handle, 0)
os.close(handle)
address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
protect = ctypes.CDLL(None, use_errno=True).mprotect
print("mapped", flush=True)
for line in sys.stdin:
    assert protect(ctypes.c_void_p(address), 5000, mmap.PROT_READ | mmap.PROT_WRITE) == 0
    mapping[:8] = line[:8].encode()
    assert protect(ctypes.c_void_p(address), 5000, mmap.PROT_READ) == 0
    print("stored", flush=True)
"""

LEAVE = """
import ctypes, mmap, os, sys, threading
handle = os.open(sys.argv[1], os.O_RDWR)
mapping = mmap.mmap(handle, 0)
leader = threading.main_thread().native_id
def go_on():
    while open(f"/proc/{leader}/stat").read().rpartition(") ")[2][0] != "Z":
        pass
    os.write(1, b"mapped\\n")
    while line := os.read(0, 100):
        mapping[:8] = line[:8]
        os.write(1, b"stored\\n")
    os._exit(0)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).syscall(60, 0)  # exit, of this thread alone
"""


@pytest.fixture
def here(on_volume):
    (on_volume.root / "a").write_bytes(bytes(5000))
    (on_volume.root / "b").write_bytes(bytes(5000))
    on_volume.watch = on_volume.open()
    return on_volume


def files(here):
    return {one.path: one.mapped for one in here.watch.holders().files if one.path is not None}


class Keeper:
    def __init__(self, path, script=KEEP):
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", script, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "mapped\n"

    def store(self, text):
        self.process.stdin.write(f"{text:8}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "stored\n"

    def kill(self):
        self.process.kill()
        self.process.communicate()


def test_nobody_holds_anything(here):
    assert files(here) == {}


def test_a_mapped_file_is_held_as_long_as_it_is_mapped(here):
    keeper = Keeper(here.root / "a")
    try:
        for _ in range(3):  # also while the process sleeps
            assert files(here) == {b"a": True}
        here.watch.drain()
        keeper.store("first")
        step = here.during(here.watch, lambda: keeper.store("second"))
        assert step.changed == {b"a"} == step.held()
        assert here.nothing_in(step.dirty), "the kernel reports stores now?"
    finally:
        keeper.kill()
    assert here.watch.drain().places == {b"": frozenset({b"a"})}, "its end is an event"
    assert files(here) == {}


def test_a_mapping_of_this_process_is_held(here):
    with open(here.root / "a", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        file.close()
        mapping[:1] = b"x"
        assert files(here) == {b"a": True}


def test_a_thread_that_is_not_the_first_sees_what_its_process_holds(here):
    with (
        open(here.root / "a", "r+b") as file,
        mmap.mmap(file.fileno(), 0) as mapping,
        open(here.root / "b", "r+b"),
        ThreadPoolExecutor(max_workers=1) as threads,
    ):
        file.close()
        mapping[:1] = b"x"
        assert threads.submit(files, here).result() == {b"a": True, b"b": False}


def test_a_mapping_is_held_that_can_be_written_no_more(here):
    keeper = Keeper(here.root / "a", HIDE)
    try:
        keeper.store("first")
        here.watch.drain()
        step = here.during(here.watch, lambda: keeper.store("second"))
        assert step.changed == {b"a"} == step.held()
        assert here.nothing_in(step.dirty)
    finally:
        keeper.kill()


def test_what_is_held_by_threads_whose_first_has_ended_is_found(here):
    keeper = Keeper(here.root / "a", LEAVE)
    try:
        step = here.during(here.watch, lambda: keeper.store("x"))
        assert step.changed == {b"a"} == step.held()
        assert files(here) == {b"a": True}
    finally:
        keeper.kill()


def test_a_process_that_has_ended_and_nobody_waits_for_is_asked_once(here, monkeypatch):
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    asked = []
    monkeypatch.setattr(grips, "status", lambda pid: asked.append(pid) or procfs.status(pid))
    looking = grips.Grips(os.stat(here.root).st_dev)
    try:
        looking.look()
        assert ended.pid in asked
        asked.clear()
        looking.look()
        assert ended.pid not in asked
    finally:
        ended.wait()


def test_shared_mappings_are_the_same_by_query_and_by_text(here, monkeypatch):
    with (
        open(here.root / "a", "r+b") as file,
        open(here.root / "b", "r+b") as other,
        mmap.mmap(file.fileno(), 0),
        mmap.mmap(other.fileno(), 0, prot=mmap.PROT_READ),
    ):
        queried = mappings.shared_mappings(os.getpid())
        read = []

        def refused(*_):
            raise OSError(errno.ENOTTY, "an older kernel")

        monkeypatch.setattr(mappings.fcntl, "ioctl", refused)
        monkeypatch.setattr(mappings, "read", lambda path: read.append(path) or procfs.read(path))
        assert mappings.shared_mappings(os.getpid()) == queried
        assert read, "the text was asked"
        found = {os.readlink(one.link): one.writable for one in queried}
        assert found[os.fsencode(here.root / "a")] is True
        assert found[os.fsencode(here.root / "b")] is False


def test_a_private_or_read_only_mapping_holds_nothing(here):
    with open(here.root / "a", "rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY):
            assert files(here) == {}
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
            assert files(here) == {}


def test_a_file_open_for_writing_is_held_and_one_for_reading_is_not(here):
    with open(here.root / "a", "r+b"), open(here.root / "b", "rb"):
        assert files(here) == {b"a": False}


def test_a_held_file_is_found_under_its_new_name(here):
    with open(here.root / "a", "r+b"):
        assert files(here) == {b"a": False}
        (here.root / "a").rename(here.root / "c")
        assert files(here) == {b"c": False}


def test_a_held_file_with_several_names_is_told_by_its_inode(here):
    os.link(here.root / "a", here.outside / "alias")
    with open(here.outside / "alias", "r+b") as file:
        status = os.fstat(file.fileno())
        found = {(one.device, one.inode): one.path for one in here.watch.holders().files}
        assert found[status.st_dev, status.st_ino] is None


def test_a_held_file_without_a_name_or_outside_is_no_matter(here):
    with open(here.root / "a", "r+b"), open(here.outside / "x", "w+b"):
        (here.root / "a").unlink()
        assert files(here) == {}


def test_what_linux_aio_writes_is_no_event_until_the_file_is_closed(here):
    libc = ctypes.CDLL(None, use_errno=True)
    context = ctypes.c_ulong()
    assert libc.syscall(206, 4, ctypes.byref(context)) == 0  # io_setup
    with open(here.root / "a", "r+b") as file:
        data = ctypes.create_string_buffer(b"A" * 512, 512)
        fields = (0, 0, 0, 1, 0, file.fileno(), ctypes.addressof(data), 512, 0, 0, 0, 0)
        block = ctypes.create_string_buffer(struct.pack("=QIiHhIQQqQII", *fields), 64)
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(block))

        def write():
            assert libc.syscall(209, context, 1, pointers) == 1  # io_submit
            events = ctypes.create_string_buffer(32)
            assert libc.syscall(208, context, 1, 1, events, None) == 1  # io_getevents

        step = here.during(here.watch, write)
        assert step.changed == {b"a"}
        assert b"a" in {one.path for one in step.holders.files}
    libc.syscall(207, context)  # io_destroy
    assert here.watch.drain().places == {b"": frozenset({b"a"})}


@pytest.mark.parametrize("table", ["told", "empty", "unreadable"])
def test_a_file_behind_a_loop_device_is_held(here, table, monkeypatch):
    asked = []

    def told(path):
        if path != b"/proc/partitions" or table == "told":
            return procfs.read(path)
        asked.append(path)
        if table == "empty":
            return b""
        raise PermissionError(errno.EACCES, "masked")

    monkeypatch.setattr(grips, "read", told)
    with open(here.root / "image", "wb") as file:
        file.truncate(1 << 20)
    done = subprocess.run(
        ["losetup", "--find", "--show", here.root / "image"],
        capture_output=True,
        text=True,
        check=True,
    )
    device = done.stdout.strip()
    try:
        assert files(here) == {b"image": False}
        assert bool(asked) == (table != "told")
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
