"""What is known so far for one workspace: gathered between two drains, within bounds."""

from __future__ import annotations

from typing import Final

from crabrt.inspector.watch.dirty import Dirty
from crabrt.inspector.watch.kernel import Handle
from crabrt.inspector.watch.kin import Kin

NAMES_MOST: Final = 100_000
SUBTREES_MOST: Final = 20_000
INODES_MOST: Final = 50_000
"""Beyond these a scan costs less than looking at what was gathered."""

_FOREIGN_PIDS_MOST, _FOREIGN_PATHS_MOST = 16, 16


class Feed:
    """One workspace's part of what a group reports. Guarded by its hub's lock.

    Attributes:
        handle: of the workspace's directory.
        prefix: its path in the hub's view.
        kin: which processes belong to the run.
    """

    def __init__(self, handle: Handle, prefix: bytes, kin: Kin) -> None:
        self.handle = handle
        self.prefix = prefix
        self.kin = kin
        self._events_before = 0
        self._clear()

    def _clear(self) -> None:
        self._unknown: str | None = None
        self._places: dict[bytes, set[bytes]] = {}
        self._names = 0
        self._subtrees: set[bytes] = set()
        self._inodes: set[tuple[int, int]] = set()
        self._foreign: dict[int, set[bytes]] = {}

    def relative(self, path: bytes) -> bytes | None:
        """`path` of the view, relative to the workspace; None if it is not in it."""
        below = self.prefix.rstrip(b"/") + b"/"
        return path[len(below) :] if (path + b"/").startswith(below) else None

    def is_below(self, path: bytes) -> bool:
        """Whether the workspace is the directory at `path`, or in it."""
        return (self.prefix + b"/").startswith(path.rstrip(b"/") + b"/")

    def name(self, directory: bytes, name: bytes) -> None:
        """Something happened to `name` in `directory`."""
        if self._unknown is not None:
            return
        names = self._places.get(directory)
        if names is None:
            names = self._places[directory] = set()
        if name not in names:
            names.add(name)
            self._names += 1
            if self._names > NAMES_MOST:
                self.lose(f"more than {NAMES_MOST:,} names were reported")

    def subtree(self, directory: bytes) -> None:
        """All of `directory` has to be looked at."""
        if self._unknown is not None:
            return
        self._subtrees.add(directory)
        if len(self._subtrees) > SUBTREES_MOST:
            self.lose(f"more than {SUBTREES_MOST:,} directories were made or moved")

    def inode(self, device: int, inode: int) -> None:
        """An object changed whose names are not known for sure."""
        if self._unknown is not None:
            return
        self._inodes.add((device, inode))
        if len(self._inodes) > INODES_MOST:
            self.lose(f"more than {INODES_MOST:,} files with several names were reported")

    def foreign(self, pid: int, path: bytes) -> None:
        """A process that is none of the run's did something to `path`."""
        paths = self._foreign.get(pid)
        if paths is None:
            if len(self._foreign) >= _FOREIGN_PIDS_MOST:
                return
            paths = self._foreign[pid] = set()
        if len(paths) < _FOREIGN_PATHS_MOST:
            paths.add(path)

    def lose(self, why: str) -> None:
        """Only a scan will do; what was gathered is of no use."""
        if self._unknown is None:
            self._clear()
            self._unknown = why

    def take(self, events: int) -> Dirty:
        """What was gathered, and start anew.

        Args:
            events: read by the hub in all so far.
        """
        since, self._events_before = events - self._events_before, events
        subtrees = _topmost(self._subtrees)
        taken = Dirty(
            places={
                path: frozenset(names)
                for path, names in self._places.items()
                if not subtrees or not _within(path, subtrees)
            },
            subtrees=subtrees,
            inodes=frozenset(self._inodes),
            unknown=self._unknown,
            foreign={pid: frozenset(paths) for pid, paths in self._foreign.items()},
            events=since,
        )
        self._clear()
        return taken

    def start(self, events: int) -> None:
        """Count events from here on."""
        self._events_before = events


def _topmost(paths: set[bytes]) -> frozenset[bytes]:
    """Those of `paths` that lie in no other of them."""
    return frozenset(
        path for path in paths if not _within(path.rpartition(b"/")[0], paths) or not path
    )


def _within(path: bytes, tops: frozenset[bytes] | set[bytes]) -> bool:
    """Whether `path` is one of `tops` or lies in one."""
    while path:
        if path in tops:
            return True
        path = path.rpartition(b"/")[0]
    return b"" in tops
