"""From handles to paths: where a directory lies now, and under which names an object can be found.

Nothing is remembered here. Of directories the kernel tells the path, if that is short enough to be
said. Of files it knows a name at best, so a name counts only if it is proved to be the only one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from crabrt.inspector.watch.kernel import Handle, handle_of, open_handle

_INODE_IN: Final[dict[tuple[int, int], Callable[..., tuple[int, ...]]]] = {
    # (length, type) of the handle: see linux/exportfs.h, and encode_fh of each file system
    (8, 0x01): struct.Struct("=I").unpack_from,  # ext2/3/4, f2fs, XFS with small inode numbers
    (12, 0x81): struct.Struct("=Q").unpack_from,  # XFS
    (12, 0x01): struct.Struct("=4xQ").unpack_from,  # tmpfs
    (20, 0x4D): struct.Struct("=Q").unpack_from,  # btrfs
}
_HEADER = struct.Struct("=Ii")


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a directory is.

    Attributes:
        path: in the view, absolute. None: it has no name any more.
        exact: False: it is somewhere below `path`, deeper than a path can say.
        lost: nothing has its handle any more.
    """

    path: bytes | None
    exact: bool = True
    lost: bool = False


_NAMELESS = Spot(None)
_LOST = Spot(None, lost=True)


@dataclass(frozen=True, slots=True)
class Found:
    """An object that has a name.

    Attributes:
        device, inode: as stat tells them.
        path: its one name, proved; None if it has several, or none that the kernel can tell.
    """

    device: int
    inode: int
    path: bytes | None


class Places:
    """Looks handles up through one mount. Used by one thread at a time.

    Args:
        mount: a descriptor in it; stays the caller's.
    """

    def __init__(self, mount: int) -> None:
        self._mount = mount
        status = os.fstat(mount)
        self._device = status.st_dev
        sample = handle_of(mount)
        self._header = sample[: _HEADER.size]
        self._inode_in = _decoder(sample, status.st_ino)

    def of(self, directory: Handle) -> Spot:
        """Where the directory is.

        Raises:
            OSError: it cannot be told: out of descriptors, or of memory.
        """
        try:
            fd = open_handle(self._mount, directory)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            return _LOST
        try:
            return _climb(fd) if os.fstat(fd).st_nlink else _NAMELESS
        finally:
            os.close(fd)

    def is_at(self, path: bytes, handle: Handle) -> bool:
        """Whether the object is at `path`, and has no other name anywhere."""
        try:
            status = os.lstat(path)
        except OSError:
            return False
        return (
            status.st_nlink == 1
            and status.st_dev == self._device
            and self._inode_in is not None
            and handle.startswith(self._header)
            and self._inode_in(handle, _HEADER.size)[0] == status.st_ino
        )

    def find(self, handle: Handle) -> Found | None:
        """An object of which no name is sure; None if it has no name any more.

        Raises:
            OSError: it cannot be told.
        """
        try:
            fd = open_handle(self._mount, handle)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            return None
        try:
            status = os.fstat(fd)
            if status.st_nlink == 0:
                return None
            return Found(status.st_dev, status.st_ino, _only_name(fd, status))
        finally:
            os.close(fd)


def _only_name(fd: int, status: os.stat_result) -> bytes | None:
    if status.st_nlink != 1 or stat.S_ISDIR(status.st_mode):
        return None
    with contextlib.suppress(OSError):
        path = _path_of(fd)
        there = os.lstat(path)
        if (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino):
            return path
    return None


def _climb(fd: int) -> Spot:
    """The path of the directory `fd`, or of the nearest one above it whose path can be said."""
    at, exact = os.dup(fd), True
    try:
        while True:
            try:
                return Spot(_path_of(at), exact)
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
            above = os.open(b"..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at, exact = above, False
    finally:
        os.close(at)


def _path_of(fd: int) -> bytes:
    return os.readlink(b"/proc/self/fd/%d" % fd)


def _decoder(sample: Handle, inode: int) -> Callable[..., tuple[int, ...]] | None:
    """How the inode number lies in handles with the header of `sample`; None if that is not known.

    Proved by `sample`, whose inode is known. Without it every file is opened by its handle.
    """
    decode = _INODE_IN.get(_HEADER.unpack_from(sample))
    return decode if decode is not None and decode(sample, _HEADER.size)[0] == inode else None
