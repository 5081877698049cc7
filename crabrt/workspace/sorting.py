"""What a stamp says of a name: a directory to enter, something not captured, or a candidate.

Shared by the scan of everything (`scan`) and by that of what a watcher named (`recheck`).
"""

from __future__ import annotations

import os
import stat

from crabrt.errors import WorkspaceRefused
from crabrt.workspace.changes import join
from crabrt.workspace.findings import Limits, Seen
from crabrt.workspace.index import LOCKED, Dir
from crabrt.workspace.stamps import GONE, STAMP_BYTES, ctime_ns, mode_and_device, size_of

_SKIPPED_KINDS = {
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


class Sorter:
    """Sorts the names of directories for one scan, and counts how far the workspace has grown.

    Args:
        path: of the workspace, for messages.
        mounts: mount points below it, relative to it.
        known_entries, known_bytes: what the index holds, to which what is new is added.
        limits: None where the workspace was forced.
        distrust_from_ns: names whose change time is not before this are read again.

    Attributes:
        blind: stamps prove nothing of the bytes of files, so every regular file is read.
    """

    def __init__(
        self,
        path: bytes,
        mounts: frozenset[bytes],
        *,
        known_entries: int,
        known_bytes: int,
        limits: Limits | None,
        distrust_from_ns: int | None,
    ) -> None:
        self.blind = False
        self._path = path
        self._mounts = mounts
        self._known = (known_entries, known_bytes)
        self._entries, self._bytes = self._known
        self._limits = limits
        self._distrust_from_ns = distrust_from_ns

    def start_again(self) -> None:
        """Forget what was counted."""
        self._entries, self._bytes = self._known

    def sort(self, seen: Seen) -> None:
        """Sort all names of a directory. Its `dirs`, `skipped` and `read` are empty before."""
        known = seen.dir
        before_at = dict(zip(known.names, range(0, len(known.stamps), STAMP_BYTES), strict=True))
        _, device = mode_and_device(seen.stamp)
        path = known.path if self._mounts else b""
        for i, name in enumerate(seen.names):
            now = seen.stamps[i * STAMP_BYTES : (i + 1) * STAMP_BYTES]
            at = before_at.get(name)
            before = None if at is None else known.stamps[at : at + STAMP_BYTES]
            self._judge(seen, i, now, before, device=device, path=path)

    def sort_some(self, seen: Seen, names: set[bytes]) -> None:
        """Sort only `names`; `dirs`, `skipped` and `read` are right for the others."""
        known = seen.dir
        _, device = mode_and_device(seen.stamp)
        path = known.path if self._mounts else b""
        for name in names:
            seen.dirs.pop(name, None)
            seen.skipped.pop(name, None)
        for i in seen.places_of(names):
            now = seen.stamps[i * STAMP_BYTES : (i + 1) * STAMP_BYTES]
            before = known.stamp_of(seen.names[i])
            self._judge(seen, i, now, before if before != GONE else None, device=device, path=path)

    def _judge(
        self, seen: Seen, i: int, now: bytes, before: bytes | None, *, device: int, path: bytes
    ) -> None:
        known, name = seen.dir, seen.names[i]
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
        elif (
            before != now
            or name in known.doubts
            or reason
            or self.distrusts(now)
            or (self.blind and kind == stat.S_IFREG)
        ):
            seen.read.append(i)
            self.grow(0, size_of(now) - (size_of(before) if before else 0))

    def distrusts(self, now: bytes) -> bool:
        """Whether a stamp proves nothing because of when it was made."""
        return self._distrust_from_ns is not None and ctime_ns(now) >= self._distrust_from_ns

    def same_mounts(self, known: Dir) -> bool:
        """Whether the mount points in a directory are those that the index has."""
        path = known.path
        below = path + b"/" if path else b""
        here = {
            point[len(below) :]
            for point in self._mounts
            if point.startswith(below) and b"/" not in point[len(below) :]
        }
        return here == {name for name, why in known.skipped.items() if why == "mount point"}

    def grow(self, entries: int, size_bytes: int) -> None:
        """Count what is more than the index holds.

        Raises:
            WorkspaceRefused: it is too much.
        """
        self._entries += entries
        self._bytes += size_bytes
        limits = self._limits
        if limits is None or (self._entries <= limits.files and self._bytes <= limits.bytes):
            return
        what = (
            f"{limits.files:,} files"
            if self._entries > limits.files
            else f"{limits.bytes / (1 << 30):,.1f} GiB"
        )
        raise WorkspaceRefused(
            f"more than {what}",
            where=os.fsdecode(self._path),
            hint="exclude what need not be protected in .crabignore, or force it",
        )
