"""Directories of a workspace by path, opened step by step and never through a symlink.

Every change a restore makes is relative to a descriptor handed out here. Each component is opened
with ``O_NOFOLLOW``, so neither a hostile tree nor a symlink swapped in while the restore runs can
lead outside; a component on another file system, or under a mount point, is refused. Depth is no
limit: paths are walked one name at a time, a bounded number of descriptors is held, and nothing
recurses.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from types import TracebackType
from typing import Self

from crabrt.workspace.dirfd import DIR_FLAGS

_LOOK_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Blocked(Exception):
    """A path cannot be reached or changed; the message says why, for `not_restored`."""


class NoDirectory(Blocked):
    """Above the path stands something that is not a directory, so nothing is at the path."""


def describe(error: OSError) -> str:
    """What the system said, as it stands in a report."""
    return error.strerror or str(error)


def split(path: bytes) -> tuple[bytes, bytes]:
    """The parent of a relative path and its last name; the parent of a name is ``b""``."""
    parent, _, name = path.rpartition(b"/")
    return parent, name


def by_descriptor(fd: int) -> str:
    """A name of the inode behind `fd` for calls that do not take an ``O_PATH`` descriptor."""
    return f"/proc/self/fd/{fd}"


def look(parent_fd: int, name: bytes) -> int:
    """An ``O_PATH`` descriptor of one name, of whatever type, itself even if it is a symlink."""
    return os.open(name, _LOOK_FLAGS, dir_fd=parent_fd)


class Handles:
    """Descriptors of directories below one root, the most recently used kept open.

    A directory that its mode closes to us is opened up (``u+rwx``) when `may_loosen` is set;
    `loosened` remembers each of them with the mode it had, for the caller to put back. Not
    thread-safe: the one thread that restores uses it.
    """

    def __init__(
        self,
        root_fd: int,
        *,
        may_loosen: bool,
        mounts: frozenset[bytes] = frozenset(),
        limit: int = 64,
    ) -> None:
        self.root_fd = root_fd
        self.mounts = mounts
        self.loosened: dict[bytes, int] = {}
        self._may_loosen = may_loosen
        self._device = os.fstat(root_fd).st_dev
        self._limit = limit
        self._open: OrderedDict[bytes, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every descriptor but the root's."""
        while self._open:
            os.close(self._open.popitem()[1])

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """The descriptor of the directory that holds `path`, and the name in it.

        The descriptor is good until the next call. Raises as `directory` does.
        """
        parent, name = split(path)
        return self.directory(parent), name

    def directory(self, path: bytes) -> int:
        """The descriptor of a directory; good until the next call.

        Raises:
            NoDirectory: a symlink or a file stands in the way.
            Blocked: a mount point does.
            FileNotFoundError: there is no such directory.
            OSError: it cannot be opened.
        """
        if not path:
            return self.root_fd
        fd = self._open.get(path)
        if fd is not None:
            self._open.move_to_end(path)
            return fd
        base, rest = self._nearest(path)
        fd = self._open[base] if base else self.root_fd
        for name in rest:
            base = base + b"/" + name if base else name
            fd = self._enter(fd, name, base)
            self._open[base] = fd
            if len(self._open) > self._limit:
                os.close(self._open.popitem(last=False)[1])
        return fd

    def forget(self, path: bytes) -> None:
        """Close the descriptor of a directory that is about to go."""
        fd = self._open.pop(path, None)
        if fd is not None:
            os.close(fd)

    def loosen(self, path: bytes, fd: int) -> bool:
        """Let the owner write, list and enter a directory; whether that changed it."""
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        if not self._may_loosen or mode & 0o700 == 0o700:
            return False
        self.loosened.setdefault(path, mode)
        os.chmod(by_descriptor(fd), mode | 0o700)
        return True

    def _nearest(self, path: bytes) -> tuple[bytes, list[bytes]]:
        rest: list[bytes] = []
        while path and path not in self._open:
            path, name = split(path)
            rest.append(name)
        if path:
            self._open.move_to_end(path)
        return path, rest[::-1]

    def _enter(self, parent_fd: int, name: bytes, path: bytes) -> int:
        if path in self.mounts:
            raise Blocked("a mount point")
        fd = self._enter_any(parent_fd, name, path)
        if os.fstat(fd).st_dev != self._device:
            os.close(fd)
            raise Blocked("on another file system")
        return fd

    def _enter_any(self, parent_fd: int, name: bytes, path: bytes) -> int:
        try:
            return os.open(name, DIR_FLAGS, dir_fd=parent_fd)
        except PermissionError:
            fd = self._look_at_closed(parent_fd, name, path)
            try:
                if not self.loosen(path, fd):
                    raise
                return os.open(name, DIR_FLAGS, dir_fd=parent_fd)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise NoDirectory("something that is not a directory is in the way") from error
            raise

    def _look_at_closed(self, parent_fd: int, name: bytes, path: bytes) -> int:
        try:
            return os.open(name, _LOOK_FLAGS | os.O_DIRECTORY, dir_fd=parent_fd)
        except PermissionError:
            if not self.loosen(split(path)[0], parent_fd):
                raise
            return os.open(name, _LOOK_FLAGS | os.O_DIRECTORY, dir_fd=parent_fd)
