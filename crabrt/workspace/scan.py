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
from dataclasses import dataclass, field

from crabrt.errors import CrabError, Unprotected, WorkspaceRefused
from crabrt.workspace import ignore
from crabrt.workspace.changes import join
from crabrt.workspace.dirfd import GONE_ERRNOS, DirectoryMoved, DirStack, mount_points
from crabrt.workspace.identity import Workspace
from crabrt.workspace.index import LOCKED, Dir
from crabrt.workspace.stamps import (
    FOREIGN_MARGIN_NS,
    GONE,
    STAMP,
    STAMP_BYTES,
    ctime_ns,
    file_system,
    mode_and_device,
    settled,
    size_of,
    stamp,
    tick_ns,
)

MOVED_RETRIES = 3

_SKIPPED_KINDS = {
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}
_LOCKED_ERRNOS = frozenset({errno.EACCES, errno.EPERM})
_EXHAUSTED_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Cancelled(CrabError):
    """The scan was told to stop; nothing was changed by it."""

    kind = "cancelled"


@dataclass(slots=True, eq=False)
class Seen:
    """A directory in which something may differ from the index.

    Attributes:
        dir: its place in the index; a fresh one that nothing refers to yet if it is new.
        stamp, names, stamps, dirs, skipped, ignores, settled: what `Dir` is to hold afterwards.
        read: indices into `names` of what has to be read.
        relisted: its own mode, owner and extended attributes have to be read, too.
    """

    dir: Dir
    stamp: bytes
    names: tuple[bytes, ...]
    stamps: bytes
    dirs: dict[bytes, Dir]
    skipped: dict[bytes, str]
    ignores: bytes
    settled: bool
    relisted: bool
    read: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan found.

    Attributes:
        clean: nothing may differ: the state is that of the tracker's root, for sure.
        candidates: how many names and directories have to be read to know.
        entries: how many names were looked at.
        started_ns: ``time.time_ns`` when it began; changes after that belong to the next scan.
        not_captured: path and reason, in path order.
        scan_ms: how long it took.
        seen: the directories to capture.
        generation: of the tracker's index; a capture refuses a scan of another one.
    """

    clean: bool
    candidates: int
    entries: int
    started_ns: int
    not_captured: tuple[tuple[bytes, str], ...]
    scan_ms: float
    seen: tuple[Seen, ...]
    generation: int


@dataclass(frozen=True, slots=True)
class Limits:
    """When a workspace is too big to be protected without being asked twice."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class _Visit:
    """A directory still to be looked at, named by its parent."""

    dir: Dir
    stamp: bytes
    rules: ignore.Matcher | None
    rules_moved: bool


class Scanner:
    """One scan of one workspace. Used once, by one thread.

    Args:
        workspace: what to scan.
        root: the index.
        known_entries, known_bytes: what the index holds, to which what is new is added.
        limits: None where the workspace was forced.
        skipping: directories of the index in which something is not captured.
        distrust_from_ns: names whose change time is not before this are read again.
        cancelled: asked once a directory.
    """

    def __init__(
        self,
        workspace: Workspace,
        root: Dir,
        *,
        known_entries: int,
        known_bytes: int,
        limits: Limits | None,
        skipping: Iterable[Dir],
        distrust_from_ns: int | None,
        cancelled: Callable[[], bool],
    ) -> None:
        self._workspace = workspace
        self._root = root
        self._known = (known_entries, known_bytes)
        self._limits = limits
        self._skipping = skipping
        self._distrust_from_ns = distrust_from_ns
        self._cancelled = cancelled
        self._mounts = mount_points(workspace.path)
        self._local = True
        self._entries = self._bytes = self._looked_at = 0
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
            self._walk_steadily(root_fd)
        finally:
            os.close(root_fd)
        seen = tuple(self._seen.values())
        candidates = sum(len(one.read) + one.relisted for one in seen)
        moved = any(one.dirs.keys() != one.dir.dirs.keys() for one in seen)
        return Scan(
            clean=candidates == 0 and not moved,
            candidates=candidates,
            entries=self._looked_at,
            started_ns=started_ns,
            not_captured=self._not_captured(),
            scan_ms=(time.perf_counter() - began) * 1e3,
            seen=seen,
            generation=generation,
        )

    def _not_captured(self) -> tuple[tuple[bytes, str], ...]:
        found = [(one.dir, one.skipped) for one in self._seen.values()]
        found += [(node, node.skipped) for node in self._skipping if self._unchanged(node)]
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
            self._entries, self._bytes = self._known
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
        top = _Visit(self._root, stamp(os.fstat(stack.fd)), self._workspace.excludes, False)
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
        if error.errno in _EXHAUSTED_ERRNOS:
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

    def _look(self, visit: _Visit, fd: int) -> list[_Visit]:
        """Compare one directory with the index; the directories in it, last one first."""
        if self._cancelled():
            raise Cancelled("the scan was cancelled")
        known = visit.dir
        names = known.names
        lstat, pack = os.lstat, STAMP.pack
        rules, ignores = visit.rules, b""
        doubtful = visit.stamp != known.stamp or not known.settled or self._distrusts(visit.stamp)
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
            or moved
            or not complete
            or self._distrust_from_ns is not None
            or (self._mounts and not self._same_mounts(known))
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
            self._differing(seen)
            dirs = seen.dirs
        else:
            dirs = known.dirs
        if not dirs:
            return []
        at = dict(zip(names, range(0, len(stamps), STAMP_BYTES), strict=True))
        return [
            _Visit(child, stamps[at[name] : at[name] + STAMP_BYTES], rules, moved)
            for name, child in reversed(dirs.items())
        ]

    def _list(
        self, fd: int, known: Dir, rules: ignore.Matcher | None
    ) -> tuple[tuple[bytes, ...], bytes, bool]:
        """Names and stamps of what is not excluded, and whether nothing vanished meanwhile."""
        names, stamps = [], []
        complete = True
        path = known.path if rules is not None else b""
        for name in sorted(map(os.fsencode, os.listdir(fd))):
            try:
                status = os.lstat(name, dir_fd=fd)
            except FileNotFoundError:
                complete = False
                continue
            except OSError as error:
                if error.errno in _EXHAUSTED_ERRNOS:
                    raise
                status = None
            if rules is not None and rules.ignores(
                join(path, name), is_dir=status is not None and stat.S_ISDIR(status.st_mode)
            ):
                continue
            names.append(name)
            stamps.append(GONE if status is None else stamp(status))
        self._grow(len(names) - len(known.names), 0)
        return tuple(names), b"".join(stamps), complete

    def _differing(self, seen: Seen) -> None:
        """Sort the names of `seen` into directories, skipped ones and candidates; note `seen`."""
        known = seen.dir
        before_at = dict(zip(known.names, range(0, len(known.stamps), STAMP_BYTES), strict=True))
        _, device = mode_and_device(seen.stamp)
        path = known.path if self._mounts else b""
        grown = 0
        for i, name in enumerate(seen.names):
            now = seen.stamps[i * STAMP_BYTES : (i + 1) * STAMP_BYTES]
            at = before_at.get(name)
            before = None if at is None else known.stamps[at : at + STAMP_BYTES]
            mode, its_device = mode_and_device(now)
            kind = stat.S_IFMT(mode)
            reason = known.skipped.get(name)
            locked = reason is not None and reason.startswith(LOCKED) and before == now
            if self._mounts and join(path, name) in self._mounts:
                seen.skipped[name] = "mount point"
            elif now == GONE:
                seen.skipped[name] = LOCKED
            elif locked and name not in known.doubts:
                seen.skipped[name] = reason or LOCKED
            elif kind == stat.S_IFDIR:
                if its_device != device:
                    seen.skipped[name] = "another file system"
                else:
                    seen.dirs[name] = known.dirs.get(name) or Dir(known, name)
            elif kind in _SKIPPED_KINDS:
                seen.skipped[name] = _SKIPPED_KINDS[kind]
            elif before != now or name in known.doubts or reason or self._distrusts(now):
                seen.read.append(i)
                grown += size_of(now) - (size_of(before) if before else 0)
        self._grow(0, grown)
        if (
            seen.read
            or seen.relisted
            or seen.names != known.names
            or seen.stamps != known.stamps
            or seen.skipped != known.skipped
            or seen.dirs.keys() != known.dirs.keys()
            or seen.ignores != known.ignores
        ):
            self._seen[known] = seen

    def _distrusts(self, now: bytes) -> bool:
        return self._distrust_from_ns is not None and ctime_ns(now) >= self._distrust_from_ns

    def _same_mounts(self, known: Dir) -> bool:
        path = known.path
        below = path + b"/" if path else b""
        here = {
            point[len(below) :]
            for point in self._mounts
            if point.startswith(below) and b"/" not in point[len(below) :]
        }
        return here == {name for name, why in known.skipped.items() if why == "mount point"}

    def _grow(self, entries: int, size: int) -> None:
        self._entries += entries
        self._bytes += size
        limits = self._limits
        if limits is None:
            return
        where = os.fsdecode(self._workspace.path)
        hint = "exclude what need not be protected in .crabignore, or force it"
        if self._entries > limits.files:
            raise WorkspaceRefused(f"more than {limits.files:,} files", where=where, hint=hint)
        if self._bytes > limits.bytes:
            raise WorkspaceRefused(
                f"more than {limits.bytes / (1 << 30):,.1f} GiB", where=where, hint=hint
            )
