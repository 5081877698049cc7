"""From an inode to its names in the index: for what a watcher knows by nothing else.

Made when it is first asked for, as most runs never do, and brought up to date when it is asked. It
grows with the index and is never pruned of single names: every answer is compared with the stamps
that the index has now.
"""

from __future__ import annotations

from collections.abc import Iterator

from crabrt.workspace.index import Dir
from crabrt.workspace.stamps import STAMP, inodes_in


class InodeTable:
    """The directories in which each inode has, or had, a name. Owned by a `Tracker`."""

    def __init__(self, root: Dir) -> None:
        self._root = root
        self._dirs: dict[int, set[Dir]] = {}
        self._changed = set(root.walk())

    def add(self, node: Dir) -> None:
        """The directory holds other names than it did."""
        self._changed.add(node)

    def _take_in(self) -> None:
        """Note the names of the directories that changed."""
        dirs = self._dirs
        for node in self._changed:
            for inode in inodes_in(node.stamps):
                if inode in dirs:
                    dirs[inode].add(node)
                else:
                    dirs[inode] = {node}
        self._changed.clear()

    def names_of(self, inodes: frozenset[tuple[int, int]]) -> Iterator[tuple[Dir, bytes]]:
        """Directory and name of everything in the index that is one of (device, inode)."""
        self._take_in()
        for _, inode in inodes:
            gone = []
            for node in self._dirs.get(inode, ()):
                if not self._is_there(node):
                    gone.append(node)
                    continue
                stamps = STAMP.iter_unpack(node.stamps)
                for name, (_, its_inode, device, *_) in zip(node.names, stamps, strict=True):
                    if (device, its_inode) in inodes:
                        yield node, name
            self._dirs.get(inode, set()).difference_update(gone)

    def _is_there(self, node: Dir) -> bool:
        while node.parent is not None:
            if node.parent.dirs.get(node.name) is not node:
                return False
            node = node.parent
        return node is self._root
