"""The scan of what a watcher named, instead of everything: its cost is that of the change.

A watcher's word is taken for *where* something happened, never for what: every name it gives is
compared with the index by the same rules as in a full scan. Directories are not listed: the names
that came and went are among those named. So a directory whose own stamp moved stays unsettled, and
the next full scan (when the watcher failed, or as an audit of it) lists it again.
"""

from __future__ import annotations

import heapq
import os
import stat
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count

from crabrt.workspace import ignore
from crabrt.workspace.changes import join
from crabrt.workspace.cursor import Cursor, Lost
from crabrt.workspace.dirfd import DirStack
from crabrt.workspace.findings import Cancelled, Seen, Suspects
from crabrt.workspace.identity import Workspace
from crabrt.workspace.index import Dir
from crabrt.workspace.scan import EXHAUSTED_ERRNOS, Ground, Scanner, Visit
from crabrt.workspace.stamps import GONE, STAMP_BYTES, inode_and_device, mode_and_device, stamp

SELF = b""
"""Among the names in a directory: the directory itself."""

Inodes = frozenset[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Named:
    """What a recheck goes by.

    Attributes:
        suspects: where to look.
        names_of: the names that the index has for inodes.
        restless: directories with names that are read at every scan.
        mounts: mount points that the index knows of; if they are others, this is a full scan.
    """

    suspects: Suspects
    names_of: Callable[[Inodes], Iterable[tuple[Dir, bytes]]]
    restless: Iterable[Dir]
    mounts: frozenset[bytes]


class Rechecker(Scanner):
    """One scan of suspects. Turns into a full one where suspects are not enough."""

    watched = True

    def __init__(
        self,
        workspace: Workspace,
        root: Dir,
        ground: Ground,
        cancelled: Callable[[], bool],
        named: Named,
    ) -> None:
        super().__init__(workspace, root, ground, cancelled)
        self._named = named
        self._todo: dict[Dir, set[bytes]] = {}
        self._whole: set[Dir] = set()
        self._walked: set[Dir] = set()
        self._reread: dict[Dir, set[bytes]] = {}
        self._queue: list[tuple[list[bytes], int, Dir]] = []
        self._order = count()
        self._rules_of: dict[Dir, ignore.Matcher | None] = {}

    def _walk(self, stack: DirStack) -> None:
        enough = self._local and self._mounts == self._named.mounts
        if not enough or not self.trusts_stamps or not self._plan():
            self.watched = False
            super()._walk(stack)
            return
        cursor = Cursor(stack, self._root)
        while self._queue:
            _, _, node = heapq.heappop(self._queue)
            if self._cancelled():
                raise Cancelled("the scan was cancelled")
            if self._was_walked(node):
                continue
            try:
                fd = cursor.go(node)
            except Lost as lost:
                self._not_entered(lost.dir, lost.error)
            else:
                self._look_at(node, fd, stack)

    def _plan(self) -> bool:
        """Find the directories to look at; False where that is all of them."""
        self._todo.clear()
        self._whole.clear()
        self._walked.clear()
        self._reread.clear()
        self._queue.clear()
        suspects = self._named.suspects
        for path, names in suspects.places.items():
            node, missing = self._nearest(path)
            self._suspect(node, names if missing is None else (missing,))
        for path in suspects.subtrees:
            node, missing = self._nearest(path)
            if missing is not None:
                self._suspect(node, (missing,))
            elif node.parent is None:
                return False
            else:
                self._whole.add(node)
                self._suspect(node.parent, (node.name,))
        for node, name in self._named.names_of(suspects.inodes) if suspects.inodes else ():
            self._suspect(node, (name,))
        for node, name in self._named.names_of(suspects.mapped) if suspects.mapped else ():
            self._suspect(node, (name,))
            self._reread.setdefault(node, set()).add(name)
        for node in self._named.restless:
            self._suspect(node, (name for name, why in node.doubts.items() if why != "racy"))
        return ignore.IGNORE_FILE not in self._todo.get(self._root, ())

    def _nearest(self, path: bytes) -> tuple[Dir, bytes | None]:
        """The directory at `path`, or the last one above it and the name that the index lacks."""
        node = self._root
        for part in path.split(b"/") if path else ():
            below = node.dirs.get(part)
            if below is None:
                return node, part
            node = below
        return node, None

    def _suspect(self, node: Dir, names: Iterable[bytes]) -> None:
        known = self._todo.get(node)
        if known is None:
            known = self._todo[node] = set()
            parts = node.path.split(b"/") if node.parent is not None else []
            heapq.heappush(self._queue, (parts, next(self._order), node))
        known.update(names)

    def _was_walked(self, node: Dir | None) -> bool:
        while node is not None:
            if node in self._walked:
                return True
            node = node.parent
        return False

    def _look_at(self, node: Dir, fd: int, stack: DirStack) -> None:
        """Compare the suspected names of one directory with the index."""
        names = self._todo[node]
        now = stamp(os.fstat(fd))
        if ignore.IGNORE_FILE in names:
            self._walk_whole(node, now, stack)
            return
        seen = self._seen_for(node)
        if now != seen.stamp:
            seen.stamp, seen.settled = now, False
        seen.relisted = seen.relisted or SELF in names
        names.discard(SELF)
        names = self._restamp(seen, fd, names)
        self._looked_at += len(names)
        self._sorter.sort_some(seen, names)
        for at in seen.places_of(self._reread.get(node, ())):
            if at not in seen.read and seen.is_file(at):
                seen.read.append(at)
        for name in names & seen.dirs.keys():
            self._look_into(node, seen.dirs[name], seen.stamp_of(name), stack)

    def _restamp(self, seen: Seen, fd: int, names: set[bytes]) -> set[bytes]:
        """Bring names and stamps of `seen` up to date; the names that are not excluded."""
        now_names, stamps = list(seen.names), bytearray(seen.stamps)
        looked_at: set[bytes] = set()
        moved = False
        for name in names:
            found = _stamp_at(name, fd)
            at = bisect_left(now_names, name)
            known = at < len(now_names) and now_names[at] == name
            if not known and (found is None or self._excluded(seen.dir, name, found)):
                continue
            looked_at.add(name)
            begin = at * STAMP_BYTES
            stamps[begin : begin + STAMP_BYTES * known] = found or b""
            if known != (found is not None):
                now_names[at : at + known] = [] if found is None else [name]
                moved = True
                self._sorter.grow(-1 if found is None else 1, 0)
        if moved:
            seen.names = tuple(now_names)
        if looked_at:
            seen.stamps = bytes(stamps)
        return looked_at

    def _look_into(self, above: Dir, node: Dir, now: bytes, stack: DirStack) -> None:
        """A suspected name is a directory: look at it whole if it is another one."""
        new = above.dirs.get(node.name) is not node or node in self._whole
        if not new and inode_and_device(now) == inode_and_device(node.stamp):
            if now != node.stamp:
                self._suspect(node, (SELF,))
            return
        depth = stack.depth
        try:
            stack.push(node.name)
        except OSError as error:
            self._not_entered(node, error)
            return
        self._walk_whole(node, now, stack)
        stack.up_to(depth)

    def _walk_whole(self, node: Dir, now: bytes, stack: DirStack) -> None:
        rules = self._workspace.excludes if node.parent is None else self._rules(node.parent)
        self._walk_below(stack, Visit(node, now, rules, rules_moved=False))
        self._walked.add(node)

    def _excluded(self, node: Dir, name: bytes, found: bytes) -> bool:
        rules = self._rules(node)
        if rules is None:
            return False
        mode, _ = mode_and_device(found)
        return rules.ignores(join(node.path, name), is_dir=stat.S_ISDIR(mode))

    def _rules(self, node: Dir) -> ignore.Matcher | None:
        """The patterns in force in a directory, by the index."""
        if node not in self._rules_of:
            chain = [node]
            while chain[-1].parent is not None and chain[-1].parent not in self._rules_of:
                chain.append(chain[-1].parent)
            for one in reversed(chain):
                above = one.parent
                rules = self._workspace.excludes if above is None else self._rules_of[above]
                self._rules_of[one] = (
                    ignore.with_file(one.ignores, one.path, rules) if one.ignores else rules
                )
        return self._rules_of[node]


def _stamp_at(name: bytes, fd: int) -> bytes | None:
    """The stamp of a name, `GONE` where it cannot be had; None if it is not there.

    Raises:
        OSError: out of memory.
    """
    try:
        return stamp(os.lstat(name, dir_fd=fd))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in EXHAUSTED_ERRNOS:
            raise
        return GONE
