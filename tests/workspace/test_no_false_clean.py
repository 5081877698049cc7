"""Attacks on the one unforgivable error: a scan that says clean when something differs."""

import os
import threading
import time

import pytest

from crabrt.testing import oracle
from crabrt.workspace.dirfd import names_in
from crabrt.workspace.stamps import (
    CLOCK_JITTER_NS,
    GONE,
    clock_offset_ns,
    ctime_ns,
    settled,
    stamp,
    tick_ns,
)

ROUNDS = 250
FINE_STAMPS = (6, 13)
"""Since this kernel a stamp that somebody looked at is never given again."""


def test_writes_in_the_tick_of_the_capture(on_volume):
    """Same size, same mtime, within one clock tick of the read: the stamps are often equal."""
    tracked = on_volume
    path = tracked.root / "file"
    path.write_bytes(b"0000")
    tracked.capture()
    equal_stamps = 0
    for number in range(1, ROUNDS):
        fd = os.open(path, os.O_WRONLY)
        os.pwrite(fd, b"%04d" % number, 0)
        first = tracked.capture()
        before = stamp(os.lstat(path))
        os.pwrite(fd, b"%04d" % (9999 - number), 0)
        os.close(fd)
        equal_stamps += stamp(os.lstat(path)) == before
        scan = tracked.tracker.scan()
        assert not scan.clean
        assert tracked.tracker.capture(scan, tracked.objects).root != first.root
    if tuple(map(int, os.uname().release.split(".")[:2])) < FINE_STAMPS:
        assert equal_stamps, "no write fell into the tick, so this proved nothing"


def test_names_that_come_and_go_in_the_tick_of_the_capture(on_volume):
    tracked = on_volume
    (tracked.root / "dir").mkdir()
    tracked.capture()
    for number in range(ROUNDS):
        (tracked.root / "dir" / f"{number % 7}").touch()
        tracked.capture()
        os.unlink(tracked.root / "dir" / f"{number % 7}")
        scan = tracked.tracker.scan()
        assert not scan.clean
        changes = tracked.tracker.capture(scan, tracked.objects).changes
        assert [change.how for change in changes] == [("removed",)]


def test_attributes_of_a_directory_in_the_tick_of_the_capture(on_volume):
    tracked = on_volume
    (tracked.root / "dir").mkdir()
    tracked.capture()
    for number in range(ROUNDS // 5):
        os.setxattr(tracked.root / "dir", "user.a", b"%d" % number)
        assert tracked.how() == {b"dir": {"xattrs"}}


def test_a_writer_that_never_stops(on_volume):
    """Captures beside a writer; whatever they said, the state it leaves is seen."""
    tracked = on_volume
    paths = [tracked.root / name for name in "abcd"]
    for path in paths:
        path.write_bytes(b"0" * 100)
    stop = threading.Event()

    def write():
        number = 0
        while not stop.is_set():
            number += 1
            with paths[number % 4].open("r+b") as file:
                file.write(b"%0100d" % number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            tracked.capture()
    finally:
        stop.set()
        writer.join()
    tracked.capture()
    tracked.agrees()


def test_names_that_come_after_a_directory_was_opened_are_listed(on_volume):
    """Read through the old descriptor, btrfs leaves them out, and the stamp hides that for good."""
    root = on_volume.root
    for name in ("a", "b"):
        (root / name).mkdir()
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for old, new in (("a", "c"), ("b", "a"), ("c", "b")):
            (root / old).rename(root / new)
        (root / "new").touch()
        assert sorted(names_in(fd)) == [b"a", b"b", b"new"]
    finally:
        os.close(fd)


def test_what_comes_between_opening_and_listing_is_not_missed(on_volume, monkeypatch):
    """The window is staged: the names change when the workspace is open and not yet looked at."""
    tracked = on_volume
    (tracked.root / "a").write_text("a")
    tracked.capture()
    opened = tracked.workspace.open_root

    def open_and_change():
        fd = opened()
        (tracked.root / "a").rename(tracked.root / "b")
        now = tick_ns()
        while tick_ns() <= now:  # what comes now cannot have the stamp of the rename
            os.sched_yield()
        return fd

    with monkeypatch.context() as patched:
        patched.setattr(type(tracked.workspace), "open_root", lambda _: open_and_change())
        scan = tracked.tracker.scan()
    tracked.tracker.capture(scan, tracked.objects)
    tracked.agrees()


def test_a_tree_that_is_moved_about_while_it_is_captured(on_volume):
    tracked = on_volume
    for name in ("a", "b"):
        (tracked.root / name / "deep" / "deeper").mkdir(parents=True)
        (tracked.root / name / "deep" / "deeper" / "file").write_bytes(name.encode())
    stop = threading.Event()
    root = os.fsencode(tracked.root)

    def move():
        while not stop.is_set():
            os.rename(root + b"/a", root + b"/c")
            os.rename(root + b"/b", root + b"/a")
            os.rename(root + b"/c", root + b"/b")
            os.symlink(b"/etc", root + b"/a/deep/deeper/passing")
            os.unlink(root + b"/a/deep/deeper/passing")

    mover = threading.Thread(target=move)
    mover.start()
    try:
        for _ in range(300):
            snapshot = tracked.tracker.capture(tracked.tracker.scan(), tracked.objects)
            assert snapshot.root
    finally:
        stop.set()
        mover.join()
    tracked.capture()
    tracked.agrees()


def test_the_wall_clock_set_back_between_two_captures(tracked, monkeypatch):
    """What was read before the step may get the very same stamp again after it."""
    path = tracked.root / "file"
    path.write_bytes(b"before")
    tracked.settle()
    assert tracked.tracker.scan().clean
    offset = tracked.tracker._clock[1]
    monkeypatch.setattr(
        "crabrt.workspace.tracker.clock_offset_ns", lambda: offset - 3_600_000_000_000
    )
    scan = tracked.tracker.scan()
    assert not scan.clean
    assert [tracked.tracker._top.names[i] for i in scan.seen[0].read] == [b"file"]


@pytest.mark.parametrize("losses", range(4))
def test_a_thread_that_loses_its_cpu_between_two_clocks_saw_no_step(monkeypatch, losses):
    """Not a step, which costs a scan, and none to hide a real one behind."""
    settled_offset = clock_offset_ns()
    elapsed = read = 0

    def clock(real):
        def now(*which):
            nonlocal elapsed, read
            read += 1
            if read in {2 * n for n in range(1, losses + 1)}:
                elapsed += 30_000_000
            return real(*which) + elapsed

        return now

    monkeypatch.setattr("time.time_ns", clock(time.time_ns))
    monkeypatch.setattr("time.clock_gettime_ns", clock(time.clock_gettime_ns))
    assert abs(clock_offset_ns() - settled_offset) < CLOCK_JITTER_NS


@pytest.mark.parametrize(
    ("changed_ns", "read_ns", "trusted"),
    [
        (1_004_000_001, 1_004_000_001, False),  # the same tick
        (1_004_000_001, 1_008_000_001, True),  # the next one
        (5_000_000_000, 5_900_000_000, False),  # a stamp rounded to the second, in that second
        (4_000_000_000, 5_900_000_000, False),  # ... or to two
        (4_000_000_000, 6_100_000_000, True),
        (9_000_000_001, 8_000_000_001, False),  # from the future
    ],
)
def test_a_stamp_is_believed_only_when_it_cannot_come_again(changed_ns, read_ns, trusted):
    assert settled(changed_ns, read_ns, 0) is trusted


def test_times_beyond_64_bits_of_nanoseconds_are_compared(tracked):
    path = tracked.root / "file"
    path.touch()
    tracked.settle()
    status = os.lstat(path)

    class Late:
        st_mtime_ns = 1 << 66
        st_ctime_ns = status.st_ctime_ns

        def __getitem__(self, index):
            return status[index]

    late = stamp(Late())
    assert late not in (GONE, stamp(status))
    assert ctime_ns(late) == status.st_ctime_ns


def test_a_file_written_while_it_is_read_is_torn_and_read_again(tracked, monkeypatch):
    path = tracked.root / "file"
    path.write_bytes(b"calm")
    reads = 0
    real = os.read

    def read_and_write(fd, size):
        nonlocal reads
        data = real(fd, size)
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/file"):
            reads += 1
            path.write_bytes(b"wild %d" % reads)
        return data

    with monkeypatch.context() as patch:
        patch.setattr("crabrt.workspace.files.os.read", read_and_write)
        snapshot = tracked.capture()
    assert reads == 3
    assert snapshot.consistency == "torn"
    assert not tracked.tracker.scan().clean
    tracked.settle()
    tracked.agrees()
    assert oracle.digest(tracked.root)
