"""Workspaces on real file systems, tracked into objects in memory."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from crabrt.core.trees import Kind
from crabrt.store.contents import read_bytes
from crabrt.testing import oracle
from crabrt.testing.filesystems import file_system
from crabrt.testing.memory import MemoryObjects
from crabrt.workspace import Tracker, Workspace, diff_roots, read_root, read_tree
from crabrt.workspace.links import read_groups
from crabrt.workspace.mapped import first_stores_show
from crabrt.workspace.stamps import tick_ns

HERE = [
    "here",
    pytest.param("tmpfs", marks=pytest.mark.root),
    pytest.param("xfs", marks=pytest.mark.root),
    pytest.param("btrfs", marks=pytest.mark.root),
    pytest.param("overlay", marks=pytest.mark.root),
]


class Tracked:
    """A workspace with its tracker, and what the tests ask of them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = base / "work"
        self.root.mkdir(exist_ok=True)
        self.home = base / "home"
        self.objects = MemoryObjects()
        self.workspace = Workspace.open(self.root, self.home)
        self.tracker = self.new_tracker()

    def new_tracker(self, **options):
        return Tracker(
            self.workspace, **({"huge_files": 1_000_000, "huge_bytes": 1 << 40} | options)
        )

    def capture(self):
        """Scan and capture; the changes told at once are those that the stored trees tell."""
        snapshot = self.tracker.capture(self.tracker.scan(), self.objects)
        if snapshot.previous is not None:
            told = list(diff_roots(self.objects, snapshot.previous, snapshot.root))
            assert list(snapshot.changes) == told
        root = read_root(self.objects, snapshot.root)
        assert (root.files, root.size_bytes) == (snapshot.files, snapshot.size_bytes)
        return snapshot

    def how(self):
        """Capture; what changed, by path."""
        return {change.path: set(change.how) for change in self.capture().changes}

    def settle(self):
        """Capture until nothing is in doubt for being young. Returns the last snapshot."""
        snapshot = self.capture()
        for _ in range(1000):
            wait_for_tick()
            scan = self.tracker.scan()
            snapshot = self.tracker.capture(scan, self.objects)
            if scan.clean or (self.blind and self._is_settled()):
                return snapshot
        pytest.fail("it never settles")

    @property
    def blind(self):
        """Whether every file is read at every scan here: no stamp proves anything of its bytes."""
        fd = os.open(self.root, os.O_RDONLY)
        try:
            return not first_stores_show(fd)
        finally:
            os.close(fd)

    def _is_settled(self):
        todo = [self.tracker._top]
        while todo:
            node = todo.pop()
            if node.doubts or not node.settled:
                return False
            todo += node.dirs.values()
        return True

    def settle_except_mapped(self):
        """Capture until nothing but mapped files is in doubt."""
        for _ in range(1000):
            wait_for_tick()
            snapshot = self.capture()
            top = self.tracker._top
            if top.settled and set(top.doubts.values()) == {"volatile"}:
                return snapshot
        pytest.fail("it never settles")

    def manifest(self):
        """What was captured, in the oracle's words."""
        return manifest_of(self.objects, self.tracker.root)

    def agrees(self):
        """The capture and the oracle say the same."""
        mine, truth = self.manifest(), oracle.manifest(self.root)
        assert mine == truth, oracle.describe_difference(truth, mine)


def wait_for_tick():
    """Until files are stamped with a later time than now."""
    now = tick_ns()
    while tick_ns() <= now:
        os.sched_yield()


def manifest_of(reader, root):
    groups = read_groups(read_root(reader, root).links, reader)
    kinds = {Kind.FILE: "file", Kind.DIR: "dir", Kind.SYMLINK: "link", Kind.FIFO: "fifo"}
    facts = {}
    for path, entry in read_tree(reader, root):
        content, size = "", 0
        if entry.content is not None:
            data = read_bytes(entry.content, reader)
            content, size = hashlib.blake2b(data, digest_size=32).hexdigest(), len(data)
        facts[path] = oracle.Fact(
            kind=kinds[entry.kind],
            mode=0 if entry.kind == Kind.SYMLINK else entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            mtime_ns=entry.mtime_ns,
            size=size,
            content=content,
            target=entry.target,
            xattrs=entry.xattrs,
            linked_to=groups[path][0] if path in groups else b"",
        )
    return facts


@pytest.fixture(params=HERE, scope="module")
def volume(request):
    """An empty directory on each kind of file system."""
    with file_system(request.param) as path:
        yield path


@pytest.fixture
def tracked(tmp_path):
    """An empty workspace in the temporary directory."""
    return Tracked(tmp_path)


@pytest.fixture
def on_volume(volume):
    """An empty workspace on each kind of file system."""
    base = volume / f"case-{time.monotonic_ns()}"
    base.mkdir()
    return Tracked(base)
