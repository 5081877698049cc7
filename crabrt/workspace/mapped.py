"""Shared writable mappings: files whose bytes can change while their times stand still.

Once a page of such a mapping is dirty, further stores move neither mtime nor ctime. A file under
one is therefore *volatile*: read again at every scan, until it is read with no mapping in sight.

Two ways to know, both used *before* a file is read. A mapping made later shows: its first store
moves the times, and `stamps.settled` compares them with a tick taken before all this.

1. A read lease is granted only while nobody has the file open for writing, and a shared writable
   mapping counts as that (fcntl(2), ``F_SETLEASE``). Taken and given back at once, it says in a
   microsecond that there is no mapping, for processes of every user and PID namespace.
2. Where a lease is refused, ``/proc/*/maps`` of all processes tells mappings from plain writers.
   That takes longer than reading a small file again, so small ones are volatile while anybody has
   them open for writing.

On some file systems not even the first store shows (`first_stores_show`): then a mapping that came
and went between two looks left no trace, and stat proves nothing about any regular file.
"""

from __future__ import annotations

import mmap
import os
import signal
from collections import defaultdict
from dataclasses import dataclass, field
from fcntl import F_RDLCK, F_SETLEASE, F_SETSIG, F_UNLCK
from fcntl import fcntl as control
from typing import NamedTuple

from crabrt.workspace.mappings import EverWritable, Mapping, shared_mappings
from crabrt.workspace.stamps import file_system, tick_ns

_LEASES_TELL = frozenset({"ext2/3/4", "xfs", "btrfs", "tmpfs", "f2fs"})
"""Not overlay: a mapping there is of a file in the layer below, which the lease does not see."""

_BLIND = frozenset({"tmpfs", "ramfs"})
_TRIED: dict[tuple[int, int], bool] = {}
"""Overlay file systems, by device and identity: numbers of unmounted devices are given again."""

_SIGURG = int(signal.SIGURG)

SMALL_BYTES = 1 << 20
"""Reading so much takes less time than looking at all processes."""


@dataclass(frozen=True, slots=True)
class _Listing:
    """What ``/proc`` said.

    Attributes:
        tick_ns: taken before looking.
        mappings: the shared ones, by the inode of their file. A chance match with one of another
            device costs one more read.
        unseen: how many processes may not be looked at.
    """

    tick_ns: int
    mappings: dict[int, list[Mapping]]
    unseen: int
    writable: EverWritable = field(default_factory=EverWritable)

    def volatile(self, inode: int) -> bool:
        """Whether stores can go, or have gone, through any mapping of that file."""
        return any(one in self.writable for one in self.mappings.get(inode, ()))


class Held(NamedTuple):
    """Whether stores may go unseen in a file about to be read.

    Attributes:
        volatile: they may.
        tick_ns: from when on this was known; changes since then must show in the file's times.
    """

    volatile: bool
    tick_ns: int


class Mappings:
    """Answers for the files of one capture. ``/proc`` is read at most once, and rarely at all.

    Args:
        fd: the workspace, to know its file system.
    """

    def __init__(self, fd: int) -> None:
        self._leases = leases_tell(fd)
        self._listing: _Listing | None = None

    def held(self, fd: int, size_bytes: int) -> Held:
        """Look at the file open for reading at `fd`; to be called before it is read."""
        tick = tick_ns()
        written = open_for_writing(fd) if self._leases else None
        if written is False:
            return Held(volatile=False, tick_ns=tick)
        if written and size_bytes <= SMALL_BYTES:
            return Held(volatile=True, tick_ns=tick)
        if self._listing is None:
            self._listing = _list()
        listing = self._listing
        # In use, and somebody cannot be looked at: it may be their mapping.
        unknown = written is True and listing.unseen > 0
        return Held(unknown or listing.volatile(os.fstat(fd).st_ino), listing.tick_ns)

    @property
    def unobserved(self) -> tuple[str, ...]:
        """What could not be looked at although it was needed."""
        unseen = self._listing.unseen if self._listing is not None else 0
        return unchecked("mapped files of", unseen)


def unchecked(files: str, processes: int) -> tuple[str, ...]:
    """That files of so many processes could not be checked, for people; empty for none."""
    if not processes:
        return ()
    return (f"{files} {processes} process{'es' if processes > 1 else ''} unchecked",)


def leases_tell(fd: int) -> bool:
    """Whether `open_for_writing` can be believed on the file system of `fd`."""
    return file_system(fd) in _LEASES_TELL


def first_stores_show(fd: int) -> bool:
    """Whether the first store through a mapping moves the file's times, in a directory `fd`.

    Not on tmpfs and ramfs: a page that was read through the mapping can be written at once, and the
    kernel is not told (seen on Linux 6.18). Overlay does as the file system below it, which is
    found out once, with a file that has no name; where that cannot be made, they do not show.
    """
    name = file_system(fd)
    if name == "overlay":
        which = os.fstat(fd).st_dev, os.fstatvfs(fd).f_fsid
        if which not in _TRIED:
            _TRIED[which] = _shows_a_store(fd)
        return _TRIED[which]
    return name not in _BLIND


def _shows_a_store(directory: int) -> bool:
    try:
        fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except OSError:
        return False
    try:
        os.write(fd, bytes(mmap.PAGESIZE))
        os.utime(fd, ns=(0, 0))
        with mmap.mmap(fd, mmap.PAGESIZE) as mapping:
            mapping[0] = mapping[0] ^ 1
        return os.fstat(fd).st_mtime_ns != 0
    except OSError:
        return False
    finally:
        os.close(fd)


def open_for_writing(fd: int) -> bool | None:
    """Whether anybody has the file open for writing (or mapped so); None if that cannot be told.

    Whoever opens it within the microsecond of the lease waits for its end, and the kernel tells the
    holder by a signal: SIGURG, which does nothing by default (SIGIO would end the process).
    """
    try:
        control(fd, F_SETSIG, _SIGURG)
        control(fd, F_SETLEASE, F_RDLCK)
        control(fd, F_SETLEASE, F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None  # another owner's file, or leases are switched off
    return False


def _list() -> _Listing:
    tick = tick_ns()
    mappings: defaultdict[int, list[Mapping]] = defaultdict(list)
    unseen = 0
    try:
        names = os.listdir("/proc")
    except OSError:
        return _Listing(tick, {}, 1)
    for name in names:
        if not name.isdecimal():
            continue
        try:
            for mapping in shared_mappings(int(name)):
                mappings[mapping.inode].append(mapping)
        except PermissionError:
            unseen += _runs_a_program(name)
        except OSError:
            continue  # it has ended
    return _Listing(tick, mappings, unseen)


def _runs_a_program(pid: str) -> bool:
    """False for kernel threads and zombies, which map nothing."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return bool(file.read(1))
    except OSError:
        return False
