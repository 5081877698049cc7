"""Files mapped for writing by real processes: stores that move no times are seen all the same."""

import ctypes
import mmap
import os
import signal

import pytest

from crabrt.workspace.mapped import unchecked
from crabrt.workspace.stamps import tick_ns

SMALL, LARGE = 8192, 2 << 20


def wait_for_tick():
    now = tick_ns()
    while tick_ns() <= now:
        os.sched_yield()


def protect(memory, protection):
    begin = ctypes.c_char.from_buffer(memory)
    assert ctypes.CDLL(None).mprotect(ctypes.byref(begin), len(memory), protection) == 0


class Holder:
    """A child that keeps a file mapped and stores into it on command.

    After storing a capital letter it may not store any more, until it is told to.
    """

    def __init__(self, path):
        down, self._commands = os.pipe()
        self._answers, up = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                with path.open("r+b") as file:
                    memory = mmap.mmap(file.fileno(), 0)
                os.write(up, b"!")
                while byte := os.read(down, 1):
                    protect(memory, mmap.PROT_READ | mmap.PROT_WRITE)
                    memory[0:1] = byte
                    if byte.isupper():
                        protect(memory, mmap.PROT_READ)
                    os.write(up, b"!")
            finally:
                os._exit(0)
        os.close(down)
        os.close(up)
        assert os.read(self._answers, 1) == b"!"

    def store(self, byte):
        os.write(self._commands, byte)
        assert os.read(self._answers, 1) == b"!"

    def close(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._commands)
        os.close(self._answers)


@pytest.fixture
def held(on_volume, request):
    path = on_volume.root / "file"
    path.write_bytes(b"0" * request.param)
    (on_volume.root / "beside").write_bytes(b"beside")
    holder = Holder(path)
    holder.store(b"1")
    yield on_volume, path, holder
    holder.close()


@pytest.mark.parametrize("letters", [b"ab", b"AB"], ids=["writable", "read-only after"])
@pytest.mark.parametrize("held", [SMALL, LARGE], indirect=True)
def test_every_store_is_seen_while_it_is_mapped_and_no_longer(held, letters):
    tracked, path, holder = held
    tracked.settle_except_mapped()
    silent = 0
    for number in range(20):
        before = os.stat(path).st_ctime_ns
        holder.store(letters[number % 2 : number % 2 + 1])
        silent += os.stat(path).st_ctime_ns == before
        scan = tracked.tracker.scan()
        assert not scan.clean
        assert tracked.how()[b"file"] >= {"content"}
    assert silent, "every store moved the times, so this proves nothing"
    assert tracked.how() == {}
    assert tracked.tracker._top.doubts == {b"file": "volatile"}
    os.kill(holder.pid, signal.SIGSTOP)  # it neither stores nor lets go
    assert not tracked.tracker.scan().clean
    os.kill(holder.pid, signal.SIGCONT)


@pytest.mark.parametrize("held", [SMALL, LARGE], indirect=True)
def test_the_last_store_before_the_mapping_ends_is_seen(held):
    tracked, _, holder = held
    tracked.settle_except_mapped()
    holder.store(b"z")
    os.kill(holder.pid, signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    assert not tracked.tracker.scan().clean
    assert b"file" in tracked.how()
    tracked.settle()
    assert tracked.tracker._top.doubts == {}
    tracked.agrees()


@pytest.mark.parametrize("held", [SMALL, LARGE], indirect=True)
def test_the_doubt_survives_in_the_saved_index(held):
    tracked, _, holder = held
    tracked.settle_except_mapped()
    tracked.tracker.save()
    holder.store(b"y")
    tracker = tracked.new_tracker()
    tracker.load(tracked.objects)
    assert tracker.root == tracked.tracker.root
    scan = tracker.scan()
    changes = tracker.capture(scan, tracked.objects).changes
    assert [change.path for change in changes] == [b"file"]


def test_a_large_file_that_is_merely_open_for_writing_is_believed(tracked):
    """Unless there are processes that even root may not look at: then it may be theirs."""
    path = tracked.root / "log"
    with path.open("wb") as file:
        file.write(bytes(LARGE))
        file.flush()
        tracked.capture()
        wait_for_tick()
        unseen = bool(tracked.capture().unobserved)
        assert tracked.tracker._top.doubts == ({b"log": "volatile"} if unseen else {})
        file.write(b"more")
        file.flush()
        assert tracked.how() == {b"log": {"content", "times"}}


def test_a_large_file_that_others_map_to_read_it_is_believed_too(tracked):
    path = tracked.root / "log"
    path.write_bytes(bytes(LARGE))
    with (
        path.open("ab"),
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ),
    ):
        tracked.capture()
        wait_for_tick()
        unseen = bool(tracked.capture().unobserved)
        assert tracked.tracker._top.doubts == ({b"log": "volatile"} if unseen else {})


@pytest.mark.parametrize(
    ("processes", "told"),
    [
        (0, ()),
        (1, ("mapped files of 1 process unchecked",)),
        (2, ("mapped files of 2 processes unchecked",)),
    ],
)
def test_processes_that_cannot_be_seen_are_counted_in_words(processes, told):
    assert unchecked("mapped files of", processes) == told
