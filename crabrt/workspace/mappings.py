"""The files that a process has in shared mappings, through which its stores reach them.

What is mapped read-only now may have been written a moment before, until ``mprotect``. Whether it
could be is told by how the file was opened, and that by ``smaps`` alone: the mode of the link in
``map_files`` is that of an earlier mapping at the same addresses, if the kernel still knows one.

Since Linux 6.11 the kernel answers for single mappings (``PROCMAP_QUERY``, linux/fs.h); before, it
writes out all of them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from crabrt.workspace.procfs import read

Range = tuple[int, int]

_IN_MAPS: Final = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) .([w-]).s [0-9a-f]+ \S+ ([1-9][0-9]*) ", re.MULTILINE
)
_IN_SMAPS: Final = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) ...s .*\n(?:[A-Z].*\n)*?VmFlags:.* sh ", re.MULTILINE
)

_PROCMAP_QUERY: Final = 0xC068_6611
_WRITABLE: Final = 0x2
_COVERING_OR_NEXT_SHARED_FILE: Final = 0x8 | 0x10 | 0x20
_QUERY: Final = struct.Struct("=9Q4I2Q")  # struct procmap_query
_ANSWER: Final = struct.Struct("=24x3Q16xQ")  # vma_start, vma_end, vma_flags, inode
_UNSUPPORTED: Final = frozenset({errno.ENOTTY, errno.EINVAL})
_NO_MORE: Final = frozenset({errno.ENOENT, errno.ESRCH})


class Mapping(NamedTuple):
    """A shared mapping of a file.

    Attributes:
        pid: whose.
        at: its addresses: the first, and the one after the last.
        inode: of the file. Its device is left out: on btrfs and overlay it is not that of stat.
        writable: right now.
    """

    pid: int
    at: Range
    inode: int
    writable: bool

    @property
    def link(self) -> bytes:
        """A path in ``/proc`` that opens the file."""
        begin, end = self.at
        return b"/proc/%d/map_files/%x-%x" % (self.pid, begin, end)


def shared_mappings(pid: int) -> list[Mapping]:
    """All of a process.

    Raises:
        OSError: it may not be looked at, or is no more.
    """
    with maps_of(pid) as maps:
        return shared_in(maps, pid)


@contextmanager
def maps_of(pid: int) -> Iterator[int]:
    """A descriptor to ask a process by; the kernel decides here whether it may be asked.

    Raises:
        OSError: it may not be looked at, or is no more.
    """
    fd = os.open(b"/proc/%d/maps" % pid, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def shared_in(maps: int, pid: int) -> list[Mapping]:
    """As they are now, in the process that `maps` is of, if that has executed nothing since.

    Raises:
        OSError: they cannot be told.
    """
    try:
        return _queried(pid, maps)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    return [
        Mapping(pid, (int(begin, 16), int(end, 16)), int(inode), writable == b"w")
        for begin, end, writable, inode in _IN_MAPS.findall(read(b"/proc/%d/maps" % pid))
    ]


def _queried(pid: int, maps: int) -> list[Mapping]:
    found: list[Mapping] = []
    after = 0
    while True:
        query = bytearray(_QUERY.size)
        _QUERY.pack_into(query, 0, _QUERY.size, _COVERING_OR_NEXT_SHARED_FILE, after, *(0,) * 12)
        try:
            fcntl.ioctl(maps, _PROCMAP_QUERY, query)
        except OSError as error:
            if error.errno in _NO_MORE:
                return found
            raise
        begin, after, flags, inode = _ANSWER.unpack_from(query)
        found.append(Mapping(pid, (begin, after), inode, bool(flags & _WRITABLE)))


class EverWritable:
    """Which mappings are, were or can be made writable; asks each process once.

    To ask costs milliseconds: the kernel counts every page meanwhile.
    """

    def __init__(self) -> None:
        self._known: dict[int, frozenset[Range] | None] = {}

    def __contains__(self, mapping: Mapping) -> bool:
        """True also for one of a process that may not be looked at, or is no more."""
        if mapping.writable:
            return True
        if mapping.pid not in self._known:
            self._known[mapping.pid] = _opened_for_writing(mapping.pid)
        known = self._known[mapping.pid]
        return known is None or mapping.at in known


def _opened_for_writing(pid: int) -> frozenset[Range] | None:
    try:
        flags = read(b"/proc/%d/smaps" % pid)
    except OSError:
        return None
    return frozenset((int(begin, 16), int(end, 16)) for begin, end in _IN_SMAPS.findall(flags))
