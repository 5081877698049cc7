"""The exact scan: a stat of every name against the index, to find what may differ from it.

It reads no file and changes nothing. Where a directory's own stamp is settled and unchanged, its
names are known, and listing it again is saved: one stat for each of them decides. Everything that
stat cannot decide is a *candidate*, for the capture to read. Equal is only ever claimed where
stamps prove it (`stamps.settled`); what is unknown counts as changed.

Speed: the inner loop is two list comprehensions a directory and one comparison of byte strings;
about 2 us an entry.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from crabrt.errors import Unprotected
from crabrt.workspace import ignore
from crabrt.workspace.changes import join
from crabrt.workspace.dirfd import GONE_ERRNOS, DirectoryMoved, DirStack, mount_points, names_in
from crabrt.workspace.findings import Cancelled, Limits, Scan, Seen
from crabrt.workspace.identity import Workspace
from crabrt.workspace.index import LOCKED, Dir
from crabrt.workspace.mapped import first_stores_show
from crabrt.workspace.sorting import Sorter
from crabrt.workspace.stamps import (
    FOREIGN_MARGIN_NS,
    GONE,
    STAMP,
    STAMP_BYTES,
    ctime_ns,
    file_system,
    settled,
    stamp,
    tick_ns,
)

MOVED_RETRIES = 3

_LOCKED_ERRNOS = frozenset({errno.EACCES, errno.EPERM})
EXHAUSTED_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class Visit:
    """A directory still to be looked at, named by its parent."""

    dir: Dir
    stamp: bytes
    rules: ignore.Matcher | None
    rules_moved: bool


@dataclass(frozen=True, slots=True)
class Ground:
    """What a scan goes by beside the index.

    Attributes:
        entries, size_bytes: what the index holds, to which what is new is added.
        limits: None where the workspace was forced.
        skipping: directories of the index in which something is not captured.
        distrust_from_ns: names whose change time is not before this are read again.
    """

    entries: int
    size_bytes: int
    limits: Limits | None
    skipping: Iterable[Dir]
    distrust_from_ns: int | None


class Scanner:
    """One scan of one workspace. Used once, by one thread.

    What is looked at is decided by `_walk`: here, everything.

    Args:
        workspace: what to scan.
        root: the index.
        ground: what else is known.
        cancelled: asked once a directory.
    """

    watched = False

    def __init__(
        self,
        workspace: Workspace,
        root: Dir,
        ground: Ground,
        cancelled: Callable[[], bool],
    ) -> None:
        self._workspace = workspace
        self._root = root
        self._ground = ground
        self._cancelled = cancelled
        self._mounts = mount_points(workspace.path)
        self._sorter = Sorter(
            workspace.path,
            self._mounts,
            known_entries=ground.entries,
            known_bytes=ground.size_bytes,
            limits=ground.limits,
            distrust_from_ns=ground.distrust_from_ns,
        )
        self._local = True
        self._looked_at = 0
        self._seen: dict[Dir, Seen] = {}

    def run(self, generation: int) -> Scan:
        """Scan.

        Raises:
            Cancelled: `cancelled` said so.
            WorkspaceRefused: over the limits, or another directory lies at the path now.
            NotFound: the workspace is gone.
            Unprotected: it cannot be walked: out of descriptors or memory, or its directories keep
                moving.
        """
        started_ns, began = time.time_ns(), time.perf_counter()
        root_fd = self._workspace.open_root()
        try:
            self._local = file_system(root_fd) is not None
            self._sorter.blind = not first_stores_show(root_fd)
            self._walk_steadily(root_fd)
        finally:
            os.close(root_fd)
        seen = tuple(self._seen.values())
        candidates = sum(max(1, len(one.read) + one.relisted) for one in seen if one.differs)
        return Scan(
            clean=candidates == 0,
            candidates=candidates,
            entries=self._looked_at,
            started_ns=started_ns,
            not_captured=self._not_captured(),
            scan_ms=(time.perf_counter() - began) * 1e3,
            seen=seen,
            generation=generation,
            watched=self.watched,
            mounts=self._mounts,
        )

    @property
    def trusts_stamps(self) -> bool:
        """Whether the clock that made the stamps was left alone."""
        return self._ground.distrust_from_ns is None

    def _not_captured(self) -> tuple[tuple[bytes, str], ...]:
        found = [(one.dir, one.skipped) for one in self._seen.values()]
        found += [(node, node.skipped) for node in self._ground.skipping if self._unchanged(node)]
        return tuple(
            sorted(
                (join(node.path, name), reason)
                for node, skipped in found
                for name, reason in skipped.items()
            )
        )

    def _unchanged(self, node: Dir) -> bool:
        """Whether the index still holds for what is skipped in `node`."""
        if node in self._seen:
            return False
        while node.parent is not None:
            above = self._seen.get(node.parent)
            if above is not None and node.name not in above.dirs:
                return False
            node = node.parent
        return True

    def _walk_steadily(self, root_fd: int) -> None:
        for _ in range(MOVED_RETRIES):
            self._seen.clear()
            self._sorter.start_again()
            self._looked_at = 0
            try:
                with DirStack(root_fd) as stack:
                    self._walk(stack)
            except DirectoryMoved:
                continue
            except OSError as error:
                raise Unprotected(
                    f"the workspace cannot be scanned: {error.strerror}",
                    where=os.fsdecode(self._workspace.path),
                ) from error
            return
        raise Unprotected(
            "directories kept moving while the workspace was scanned",
            where=os.fsdecode(self._workspace.path),
        )

    def _walk(self, stack: DirStack) -> None:
        """Look at what has to be looked at, from the workspace itself down."""
        top = Visit(self._root, stamp(os.fstat(stack.fd)), self._workspace.excludes, False)
        self._walk_below(stack, top)

    def _walk_below(self, stack: DirStack, top: Visit) -> None:
        """Look at the current directory and at all below it."""
        levels = [self._look(top, stack.fd)]
        while levels:
            level = levels[-1]
            if not level:
                levels.pop()
                if levels:
                    stack.pop()
                continue
            visit = level.pop()
            try:
                fd = stack.push(visit.dir.name)
            except OSError as error:
                self._not_entered(visit.dir, error)
                continue
            below = self._look(visit, fd)
            if below:
                levels.append(below)
            else:
                stack.pop()

    def _not_entered(self, lost: Dir, error: OSError) -> None:
        """A directory that stat found cannot be opened."""
        if error.errno in EXHAUSTED_ERRNOS:
            raise error
        assert lost.parent is not None
        seen = self._seen_for(lost.parent)
        seen.dirs.pop(lost.name, None)
        if error.errno in _LOCKED_ERRNOS:
            seen.skipped[lost.name] = LOCKED
            return
        seen.settled = False
        seen.relisted = True
        if error.errno not in GONE_ERRNOS:
            seen.skipped[lost.name] = error.strerror or "cannot be read"

    def _seen_for(self, known: Dir) -> Seen:
        seen = self._seen.get(known)
        if seen is None:
            seen = self._seen[known] = Seen(
                dir=known,
                stamp=known.stamp,
                names=known.names,
                stamps=known.stamps,
                dirs=dict(known.dirs),
                skipped=dict(known.skipped),
                ignores=known.ignores,
                settled=known.settled,
                relisted=False,
            )
        return seen

    def _look(self, visit: Visit, fd: int) -> list[Visit]:
        """Compare one directory with the index; the directories in it, last one first."""
        if self._cancelled():
            raise Cancelled("the scan was cancelled")
        known = visit.dir
        names = known.names
        lstat, pack = os.lstat, STAMP.pack
        rules, ignores = visit.rules, b""
        doubtful = (
            visit.stamp != known.stamp or not known.settled or self._sorter.distrusts(visit.stamp)
        )
        if doubtful or ignore.IGNORE_FILE in names:
            ignores = ignore.read_file(fd)
            if ignores:
                rules = ignore.with_file(ignores, known.path, rules)
        moved = visit.rules_moved or ignores != known.ignores
        listed = moved or doubtful or not self._local
        tick = tick_ns()
        complete = True
        if not listed:
            try:
                stamps = b"".join(
                    [
                        pack(*s[:7], s.st_mtime_ns, s.st_ctime_ns)
                        for s in [lstat(name, dir_fd=fd) for name in names]
                    ]
                )
            except (OSError, struct.error):
                listed = True
        if listed:
            names, stamps, complete = self._list(fd, known, rules)
        self._looked_at += len(names)
        if (
            stamps != known.stamps
            or names != known.names
            or doubtful
            or known.doubts
            or self._sorter.blind
            or moved
            or not complete
            or self._ground.distrust_from_ns is not None
            or (self._mounts and not self._sorter.same_mounts(known))
        ):
            margin = 0 if self._local else FOREIGN_MARGIN_NS
            seen = Seen(
                dir=known,
                stamp=visit.stamp,
                names=names,
                stamps=stamps,
                dirs={},
                skipped={},
                ignores=ignores,
                settled=complete and settled(ctime_ns(visit.stamp), tick, margin),
                relisted=doubtful,
            )
            self._sorter.sort(seen)
            self._note(seen)
            dirs = seen.dirs
        else:
            dirs = known.dirs
        if not dirs:
            return []
        at = dict(zip(names, range(0, len(stamps), STAMP_BYTES), strict=True))
        return [
            Visit(child, stamps[at[name] : at[name] + STAMP_BYTES], rules, moved)
            for name, child in reversed(dirs.items())
        ]

    def _list(
        self, fd: int, known: Dir, rules: ignore.Matcher | None
    ) -> tuple[tuple[bytes, ...], bytes, bool]:
        """Names and stamps of what is not excluded, and whether nothing vanished meanwhile."""
        names, stamps = [], []
        complete = True
        path = known.path if rules is not None else b""
        for name in sorted(names_in(fd)):
            try:
                status = os.lstat(name, dir_fd=fd)
            except FileNotFoundError:
                complete = False
                continue
            except OSError as error:
                if error.errno in EXHAUSTED_ERRNOS:
                    raise
                status = None
            if rules is not None and rules.ignores(
                join(path, name), is_dir=status is not None and stat.S_ISDIR(status.st_mode)
            ):
                continue
            names.append(name)
            stamps.append(GONE if status is None else stamp(status))
        self._sorter.grow(len(names) - len(known.names), 0)
        return tuple(names), b"".join(stamps), complete

    def _note(self, seen: Seen) -> None:
        """Keep `seen` if the index is to be another one after it."""
        known = seen.dir
        if seen.differs or seen.stamps != known.stamps or seen.ignores != known.ignores:
            self._seen[known] = seen
