"""Watched workspaces on real file systems, and what counts as having been told of a change."""

import itertools
import os
import stat
from dataclasses import dataclass, replace

import pytest

from crabrt.inspector.watch import SELF, open_watch
from crabrt.testing import oracle
from crabrt.testing.filesystems import file_system

WATCHED = ("here", "tmpfs", "xfs", "btrfs", "ext4")
CASES = itertools.count()


def walk(top):
    """(path, name, descriptor of its directory) of all that is below; any depth."""
    todo = [(b"", os.open(top, os.O_RDONLY | os.O_DIRECTORY))]
    while todo:
        above, fd = todo.pop()
        for text in os.listdir(fd):
            name = os.fsencode(text)
            path = above + b"/" + name if above else name
            yield path, name, fd
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK
            try:
                todo.append((path, os.open(name, flags, dir_fd=fd)))
            except OSError:
                continue  # no directory
        os.close(fd)


@dataclass(frozen=True)
class Index:
    """What a tracker remembers of a state.

    Attributes:
        files: the names of each inode that is no directory.
        dirs: the inode of each directory.
    """

    files: dict
    dirs: dict

    @classmethod
    def of(cls, root):
        files, dirs = {}, {}
        for path, name, fd in walk(root):
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            inode = (status.st_dev, status.st_ino)
            if stat.S_ISDIR(status.st_mode):
                dirs[path] = inode
            else:
                files.setdefault(inode, set()).add(path)
        return cls(files, dirs)


@dataclass(frozen=True)
class Step:
    """What was so before and after something was done, and what the watch said of it."""

    before: Index
    after: Index
    old: dict
    new: dict
    dirty: object
    holders: object

    @property
    def changed(self):
        """The paths that the oracle tells apart."""
        paths = self.old.keys() | self.new.keys()
        return {path for path in paths if self.old.get(path) != self.new.get(path)}

    def untold(self):
        """Changed paths at which no tracker would look for what `dirty` says.

        A name whose group of hard links alone is another one did not change itself: whoever looks
        at the members that came, went or moved knows the group.
        """
        told = {path for path in self.changed if self._told(path)}
        return {path for path in self.changed - told if not (self._regrouped(path) & told)}

    def _regrouped(self, path):
        """The other members of a name's groups, if that is all that differs."""
        old, new = self.old.get(path), self.new.get(path)
        if old is None or new is None or replace(old, linked_to=new.linked_to) != new:
            return set()
        return {
            other
            for facts in (self.old, self.new)
            for other, fact in facts.items()
            if fact.linked_to and fact.linked_to == facts[path].linked_to
        }

    def _told(self, path):
        dirty = self.dirty
        if dirty.unknown is not None or SELF in dirty.places.get(path, ()):
            return True
        if any(path in self.before.files.get(inode, ()) for inode in dirty.inodes):
            return True
        at = path
        while at:
            above, _, name = at.rpartition(b"/")
            if at in dirty.subtrees:
                return True
            if name in dirty.places.get(above, ()):
                replaced = self.before.dirs.get(at) != self.after.dirs.get(at)
                if at == path or replaced:
                    return True
            at = above
        return b"" in dirty.subtrees

    def held(self):
        """The changed paths that `holders` has a tracker read."""
        found = set()
        for one in self.holders.files:
            if not one.mapped:
                continue
            if one.path is not None:
                found.add(one.path)
            else:
                found |= self.before.files.get((one.device, one.inode), set())
        return found


def nothing_in(dirty):
    """Nothing is reported of the workspace; files with several names may be of anywhere."""
    return not (dirty.places or dirty.subtrees or dirty.unknown)


class Watched:
    """A workspace, a directory beside it on the same file system, and the store's home."""

    def __init__(self, base):
        self.base = base
        self.root = base / "ws"
        self.outside = base / "outside"
        self.home = base / "home"
        for path in (self.root, self.outside, self.home):
            path.mkdir(exist_ok=True)
        self._watches = []

    nothing_in = staticmethod(nothing_in)

    def open(self, root=None, **how):
        watch = open_watch(root or self.root, self.home / "observers", **how)
        self._watches.append(watch)
        return watch

    def close(self):
        for watch in self._watches:
            watch.close()

    def during(self, watch, act):
        """Do something, and have it judged."""
        old, before = oracle.manifest(self.root), Index.of(self.root)
        watch.drain()
        act()
        holders = watch.holders()
        dirty = watch.drain()
        new, after = oracle.manifest(self.root), Index.of(self.root)
        return Step(before, after, old, new, dirty, holders)


@pytest.fixture
def watched(tmp_path):
    made = Watched(tmp_path)
    yield made
    made.close()


@pytest.fixture(params=WATCHED, scope="module")
def volume(request):
    with file_system(request.param) as path:
        yield path


@pytest.fixture(scope="module")
def make_watched(volume):
    """Makes workspaces on each kind of file system that can be watched."""

    def make():
        base = volume / f"case-{next(CASES)}"
        base.mkdir()
        return Watched(base)

    return make


@pytest.fixture
def on_volume(make_watched):
    made = make_watched()
    yield made
    made.close()


@pytest.fixture
def ws(tmp_path, monkeypatch):
    """An empty workspace, with a store of its own and nothing else set."""
    for name in list(os.environ):
        if name.startswith("CRAB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CRAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "ws").mkdir()
    return tmp_path / "ws"
