"""Walking by descriptors: any depth, no links followed, no descriptor held for every level.

Paths are hostile: a directory may be swapped for a symlink between two looks, and a tree may be
deeper than PATH_MAX allows to say. So everything here names one component relative to an open
directory, and never follows a link in it. `DirStack` is the current directory of a walk: it keeps
the upper levels' descriptors only up to a limit and finds evicted ones again, proving by (device,
inode) that they are the same directory.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from crabrt.workspace.procfs import read, unescaped

DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Opens a directory and nothing else; a symlink to one fails with ELOOP or ENOTDIR."""

OPEN_LEVELS = 32
"""How many descriptors a `DirStack` keeps."""

GONE_ERRNOS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
"""What opening a name gives when it has been removed or is no longer what it was."""


class DirectoryMoved(OSError):
    """A directory above the current one was moved or replaced while it was being walked."""

    def __init__(self, what: str) -> None:
        super().__init__(errno.ESTALE, f"moved while it was being walked: {what}")


def open_directory(name: bytes | str | os.PathLike[str], dir_fd: int | None = None) -> int:
    """Open a directory without following a link in the last component; the descriptor.

    Raises:
        OSError: it is absent, no directory, a symlink, or may not be read.
    """
    return os.open(name, DIR_FLAGS, dir_fd=dir_fd)


def names_in(dir_fd: int) -> list[bytes]:
    """The names in an open directory, as it is now.

    Opened anew: what came after a directory was opened need not be among what is read through that
    descriptor. POSIX leaves it open (readdir(3p)), and btrfs leaves it out since Linux 6.5.

    Raises:
        OSError: it was removed, or there are no descriptors left.
    """
    try:
        fd = os.open(b".", DIR_FLAGS, dir_fd=dir_fd)
    except PermissionError:  # it may be read and not searched: rewinding does on btrfs, too
        os.lseek(dir_fd, 0, os.SEEK_SET)
        return list(map(os.fsencode, os.listdir(dir_fd)))
    try:
        return list(map(os.fsencode, os.listdir(fd)))
    finally:
        os.close(fd)


class DirStack:
    """The current directory of a descriptor-relative walk.

    Owned by one thread. Level 0 is the root given at the start, whose descriptor is duplicated and
    stays open; `push` goes down by one name, `pop` goes up again. Levels between are closed when
    more than `OPEN_LEVELS` are open, and are reopened by ``..`` when the walk comes back.

    Attributes:
        fd: descriptor of the current directory; valid until the next `push`, `pop` or `close`.
    """

    __slots__ = ("_evicted", "_fds", "_idents", "_names", "fd")

    def __init__(self, root_fd: int) -> None:
        self.fd = os.dup(root_fd)
        self._fds: list[int] = [self.fd]
        self._names: list[bytes] = [b""]
        self._evicted = 1  # levels [1, _evicted) are closed: their slot in _fds is -1
        self._idents: list[tuple[int, int]] = [(0, 0)]  # (device, inode) of evicted levels

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def depth(self) -> int:
        """How many levels below the root the current directory is."""
        return len(self._fds) - 1

    @property
    def path(self) -> bytes:
        """Of the current directory, relative to the root. May be longer than PATH_MAX."""
        return b"/".join(self._names[1:])

    def push(self, name: bytes) -> int:
        """Go down into `name`; its descriptor. The walk stays where it is if that fails.

        Raises:
            OSError: as `open_directory`.
        """
        self.fd = fd = os.open(name, DIR_FLAGS, dir_fd=self.fd)
        fds = self._fds
        fds.append(fd)
        self._names.append(name)
        if len(fds) - self._evicted > OPEN_LEVELS:
            self._evict()
        return fd

    def pop(self) -> None:
        """Go up one level.

        Raises:
            DirectoryMoved: the level above had to be reopened and is no longer where it was; the
                walk then stands at the root.
        """
        fds = self._fds
        left = fds.pop()
        self._names.pop()
        above = fds[-1]
        if above < 0:
            above = self._reopen(left)
        os.close(left)
        self.fd = above

    def up_to(self, depth: int) -> None:
        """`pop` until the current directory is `depth` levels below the root."""
        while len(self._fds) - 1 > depth:
            self.pop()

    def close(self) -> None:
        """Close every descriptor, the root's too."""
        for fd in self._fds:
            if fd >= 0:
                os.close(fd)
        self._fds.clear()

    def _evict(self) -> None:
        level = self._evicted
        fd = self._fds[level]
        status = os.fstat(fd)
        del self._idents[level:]
        self._idents.append((status.st_dev, status.st_ino))
        os.close(fd)
        self._fds[level] = -1
        self._evicted = level + 1

    def _reopen(self, below: int) -> int:
        """Open the level above `below` again, and make it the topmost of the stack."""
        level = len(self._fds) - 1
        fd = os.open(b"..", DIR_FLAGS, dir_fd=below)
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != self._idents[level]:
            os.close(fd)
            os.close(below)
            moved = self.path
            root = self._fds[0]
            self._fds[:] = [root]
            self._names[:] = [b""]
            self._evicted = 1
            self.fd = root
            raise DirectoryMoved(os.fsdecode(moved[-200:]))
        self._fds[level] = fd
        self._evicted = level
        return fd


def walk_to(root_fd: int, parts: Sequence[bytes]) -> int:
    """Open the directory `parts` below `root_fd`, one component at a time; its descriptor.

    Raises:
        OSError: a component is absent, no directory, or a symlink.
    """
    fd = os.dup(root_fd)
    for part in parts:
        try:
            below = os.open(part, DIR_FLAGS, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd


def mount_points(path: bytes) -> frozenset[bytes]:
    """Mount points strictly below the absolute real `path`, relative to it.

    A bind mount of the same file system has the device number of its surroundings; only the
    kernel's list tells. Where ``/proc`` is not mounted, device numbers alone have to do.
    """
    prefix = path.rstrip(b"/") + b"/"
    try:
        table = read(b"/proc/self/mountinfo")
    except FileNotFoundError:
        return frozenset()
    plain = _UNESCAPED.match(prefix)
    if plain is not None and plain[0] not in table:  # as mostly; the rest costs ten times that
        return frozenset()
    points = (unescaped(line.split(b" ", 5)[4]) for line in table.split(b"\n")[:-1])
    return frozenset(
        point[len(prefix) :] for point in points if point.startswith(prefix) and point != prefix
    )


_UNESCAPED: Final = re.compile(rb"[^\s\\#]*")
"""The part of a path that tables of ``/proc`` show as it is."""
