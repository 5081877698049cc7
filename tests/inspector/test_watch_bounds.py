"""What a watch gives up on: overflows, floods, kernels that speak otherwise; it says unknown."""

import os
import struct
import subprocess

import pytest

import crabrt
from crabrt.inspector import observers
from crabrt.inspector.watch import feed, hub, open_watch
from crabrt.inspector.watch.events import Malformed, Queue, parse
from crabrt.inspector.watch.feed import Feed
from crabrt.inspector.watch.hub import Hub
from crabrt.inspector.watch.kernel import (
    DELETE,
    DELETE_SELF,
    ONDIR,
    mark_file_system,
    new_group,
)
from crabrt.inspector.watch.kin import Kin
from crabrt.journal import RunIndex
from crabrt.testing.filesystems import file_system


@pytest.mark.root
def test_a_full_queue_is_unknown_once(watched):
    with open("/proc/sys/fs/fanotify/max_queued_events") as file:
        most = int(file.read())
    with file_system("tmpfs") as volume:
        group = new_group(unlimited=False)
        top = os.open(volume, os.O_RDONLY)
        mark_file_system(group, top)
        one = Hub(group, top)  # without a thread: nobody empties the queue
        fed = one.add(top, Kin(os.getpid()))
        for number in range(most + 10):
            os.mknod(volume / f"{number}")
        dirty = one.drain(fed)
        assert "overflowed" in dirty.unknown
        assert dirty.places == {}
        os.mknod(volume / "after")
        assert one.drain(fed).places == {b"": frozenset({b"after"})}
        os.close(group)
        os.close(top)


@pytest.mark.root
def test_a_run_whose_queue_overflows_looks_at_everything(ws, monkeypatch):
    with open("/proc/sys/fs/fanotify/max_queued_events") as file:
        most = int(file.read())
    (ws.parent / "beside").mkdir()
    watches = []

    def bounded(*where, **how):
        watches.append(open_watch(*where, unlimited=False, **how))
        return watches[-1]

    monkeypatch.setattr(observers, "open_watch", bounded)

    @crabrt.model
    def think(turn: int) -> int:
        return turn

    @crabrt.tool
    def flood() -> None:
        with watches[0]._source.owner.hub.lock:  # nobody empties the queue meanwhile
            for number in range(most + 10):
                os.mknod(ws.parent / "beside" / f"{number}")
            (ws / "late").write_text("its event found no room")

    @crabrt.tool
    def write() -> None:
        (ws / "later").write_text("told")

    @crabrt.agent(workspace=ws, observer="fanotify")
    def loop() -> str:
        for turn, tool in enumerate((flood, write)):
            think(turn)
            tool()
        return crabrt.current_run().id

    run = loop()
    with RunIndex.open(ws.parent / "home") as index:
        index.refresh()
        flooded, told = index.turns(run)[1:]
    # What others remove in the file system meanwhile is not told either, and may be named first.
    reasons = ("the kernel's queue overflowed", "a directory was removed in a way that was not")
    assert flooded.observer.startswith(tuple(f"scan ({reason}" for reason in reasons))
    assert flooded.evidence == ("files: late new",)
    assert told.observer.startswith("fanotify")
    assert told.evidence == ("files: later new",)


@pytest.mark.root
def test_a_queue_without_a_limit_does_not_overflow(watched):
    with open("/proc/sys/fs/fanotify/max_queued_events") as file:
        most = int(file.read())
    with file_system("tmpfs") as volume:
        group = new_group(unlimited=True)
        top = os.open(volume, os.O_RDONLY)
        mark_file_system(group, top)
        one = Hub(group, top)
        fed = one.add(top, Kin(os.getpid()))
        for number in range(most + 10):
            os.mknod(volume / f"{number}")
        dirty = one.drain(fed)
        assert dirty.unknown is None
        assert len(dirty.places[b""]) == most + 10
        os.close(group)
        os.close(top)


@pytest.mark.root
def test_the_queue_is_emptied_while_nobody_drains(watched):
    watch = watched.open()
    watch.drain()
    near = watch._source
    (watched.root / "a").write_bytes(b"x")
    for _ in range(1000):
        if near._feed._places:
            break
        subprocess.run(["true"], check=True)
    assert near._feed._places == {b"": {b"a"}}


def fed(**bounds):
    return Feed(b"handle", b"/ws", Kin(1))


def test_too_many_names_are_unknown(monkeypatch):
    monkeypatch.setattr(feed, "NAMES_MOST", 10)
    one = fed()
    for number in range(12):
        one.name(b"%d" % (number % 3), b"%d" % number)
    dirty = one.take(12)
    assert "more than 10 names" in dirty.unknown
    assert dirty.places == {}
    one.name(b"", b"a")
    assert one.take(13).places == {b"": frozenset({b"a"})}


def test_too_many_directories_or_inodes_are_unknown(monkeypatch):
    monkeypatch.setattr(feed, "SUBTREES_MOST", 10)
    monkeypatch.setattr(feed, "INODES_MOST", 10)
    one = fed()
    for number in range(11):
        one.subtree(b"%d" % number)
    assert "more than 10 directories" in one.take(0).unknown
    for number in range(11):
        one.inode(1, number)
    assert "more than 10 files" in one.take(0).unknown


def test_what_lies_in_a_subtree_is_not_told_twice():
    one = fed()
    for top in (b"a", b"a/b", b"a/b/c", b"ab"):
        one.subtree(top)
    one.name(b"a/b", b"x")
    one.name(b"ac", b"y")
    dirty = one.take(0)
    assert dirty.subtrees == {b"a", b"ab"}
    assert dirty.places == {b"ac": frozenset({b"y"})}


def test_the_whole_workspace_as_a_subtree_is_all_there_is():
    one = fed()
    one.subtree(b"")
    one.subtree(b"a")
    one.name(b"b", b"x")
    dirty = one.take(0)
    assert dirty.subtrees == {b""}
    assert dirty.places == {}


@pytest.mark.parametrize(
    ("prefix", "path", "relative"),
    [
        (b"/ws", b"/ws", b""),
        (b"/ws", b"/ws/a/b", b"a/b"),
        (b"/ws", b"/wsx/a", None),
        (b"/ws", b"/", None),
        (b"/", b"/a", b"a"),
        (b"/", b"/", b""),
    ],
)
def test_paths_are_relative_to_the_workspace(prefix, path, relative):
    assert Feed(b"", prefix, Kin(1)).relative(path) == relative


def event(mask, records=b"", *, version=3, length=None):
    total = 24 + len(records) if length is None else length
    return struct.pack("=IBBHQii", total, version, 0, 24, mask, -1, 7) + records


def queue_of(data):
    near, far = os.pipe()
    os.write(far, data)
    os.close(far)
    return Queue(near)


@pytest.mark.parametrize(
    "data",
    [
        event(2)[:10],
        event(2, version=4),
        event(2, length=0),
        event(2, length=4),
    ],
    ids=["cut", "version", "no length", "short length"],
)
def test_events_of_another_make_are_malformed(data):
    with pytest.raises(Malformed):
        queue_of(data).read()


@pytest.mark.parametrize(
    "records",
    [
        b"\x01",
        struct.pack("=BxHQIi", 1, 0, 0, 8, 1),
        struct.pack("=BxHQIi", 1, 20, 0, 800, 1),
        struct.pack("=BxHQIi", 2, 20, 0, 0xFFFFFFFF, 1),
    ],
    ids=["cut", "no length", "long handle", "endless handle"],
)
def test_records_of_another_make_are_malformed(records):
    with pytest.raises(Malformed):
        parse(records, 2, 1)


def test_equal_events_are_folded():
    record = struct.pack("=BxHQIi8s", 1, 28, 0, 8, 1, b"12345678")
    queue = queue_of(event(2, record) + event(8, record) + event(0x4000))
    found = queue.read()
    assert found == {record: (10, 7)}
    assert queue.overflowed
    assert queue.events == 3


@pytest.mark.root
def test_a_group_that_cannot_be_read_is_unknown_and_replaced(watched):
    watch = watched.open()
    hub_before = watch._source.owner.hub
    hub_before.fail("staged")
    assert watch.drain().unknown == "staged"
    assert watch._source.owner.hub is not hub_before
    (watched.root / "a").write_bytes(b"x")
    assert watch.drain().places == {b"": frozenset({b"a"})}


@pytest.mark.root
def test_a_directory_that_cannot_be_resolved_is_unknown(watched, monkeypatch):
    watch = watched.open()
    watch.drain()

    def refuse(self, handle):
        raise OSError(12, "out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(hub.Places, "of", refuse)
        (watched.root / "a").write_bytes(b"x")
        assert "out of memory" in watch.drain().unknown
    (watched.root / "a").write_bytes(b"x")
    assert watch.drain().places == {b"": frozenset({b"a"})}


@pytest.mark.root
def test_a_directory_whose_removal_nobody_reported_is_unknown_once(watched, monkeypatch):
    """Staged: the kernel's word on the removal is held back."""
    watch = watched.open()
    (watched.root / "d").mkdir()
    watch.drain()
    real = hub.parse

    def withheld(records, mask, pid):
        report = real(records, mask, pid)
        gone = report.mask & ONDIR and report.mask & (DELETE | DELETE_SELF)
        return report._replace(mask=0) if gone else report

    busy = watch._source.owner.hub.lock  # else its thread may look while the directory is there
    with monkeypatch.context() as patch, busy:
        patch.setattr(hub, "parse", withheld)
        (watched.root / "d" / "x").write_bytes(b"x")
        (watched.root / "d" / "x").unlink()
        (watched.root / "d").rmdir()
        assert "removed" in watch.drain().unknown
    assert watch.drain().unknown is None
