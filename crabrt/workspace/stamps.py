"""What stat says about a name, packed for comparison, and when that may be believed.

A `Stamp` is the part of a stat result that moves when state may have moved. Equal stamps mean equal
state only if the earlier one was taken in a later clock tick than its own change time: two changes
in one tick leave the same times (git calls this "racily clean"). The kernel stamps with its coarse
clock, which ticks every 1 to 10 ms, so that clock decides; file systems that round further down
reveal it by stamps without a fraction.
"""

from __future__ import annotations

import ctypes
import functools
import os
import stat
import struct
import time
from collections.abc import Iterator
from itertools import chain

STAMP = struct.Struct("=IQQQIIQqq")
"""mode, inode, device, nlink, uid, gid, size, mtime ns, ctime ns."""

STAMP_BYTES = STAMP.size
GONE = bytes(STAMP_BYTES)
"""The stamp of a name that was not there: equal to no real one."""

_pack = STAMP.pack
_ctime = struct.Struct("=q").unpack_from
_mode_device = struct.Struct("=I8xQ").unpack_from
_inode_device = struct.Struct("=4xQQ").unpack_from
_inode = struct.Struct(f"=4xQ{STAMP_BYTES - 12}x")
_mode_size = struct.Struct("=I32xQ").unpack_from
_CTIME_AT = STAMP_BYTES - 8
_SECOND_NS = 1_000_000_000
_INT64 = 1 << 63

_TRUSTED = {
    0xEF53: "ext2/3/4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x01021994: "tmpfs",
    0x858458F6: "ramfs",
    0xF2F52010: "f2fs",
    0xCA451A4E: "bcachefs",
    0x2FC12FC1: "zfs",
    0x794C7630: "overlay",
}
"""Local file systems whose directories change their times with every change of a name in them, and
whose stamps come from this kernel's clock. Values from linux/magic.h."""

FOREIGN_MARGIN_NS = 5 * _SECOND_NS
"""How much older than now a stamp must be where another machine's clock may have made it."""

CLOCK_JITTER_NS = 100_000
"""Two readings of the same clocks differ by less than this without anybody setting them."""


def stamp(status: os.stat_result) -> bytes:
    """The stamp of a stat result."""
    try:
        return _pack(*status[:7], status.st_mtime_ns, status.st_ctime_ns)
    except struct.error:  # times beyond the year 2262
        return _pack(*status[:7], _wrap(status.st_mtime_ns), _wrap(status.st_ctime_ns))


def _wrap(value: int) -> int:
    return (value + _INT64) % (2 * _INT64) - _INT64


def mode_and_device(packed: bytes) -> tuple[int, int]:
    """Type and permission bits, and the device number, in a stamp."""
    found: tuple[int, int] = _mode_device(packed)
    return found


def inode_and_device(packed: bytes) -> tuple[int, int]:
    """Inode and device number in a stamp; (0, 0) in an empty one."""
    found: tuple[int, int] = _inode_device(packed) if packed else (0, 0)
    return found


def inodes_in(stamps: bytes) -> Iterator[int]:
    """The inode of each of several stamps, one after the other."""
    return chain.from_iterable(_inode.iter_unpack(stamps))


def size_of(packed: bytes) -> int:
    """The size in bytes of a regular file by its stamp; 0 for anything else."""
    mode, size = _mode_size(packed)
    return int(size) if stat.S_ISREG(mode) else 0


def ctime_ns(packed: bytes) -> int:
    """The change time in a stamp."""
    found: int = _ctime(packed, _CTIME_AT)[0]
    return found


def tick_ns() -> int:
    """The clock that the kernel stamps files with: to be read *before* what is to be believed."""
    return time.clock_gettime_ns(_COARSE)


_COARSE = 5  # CLOCK_REALTIME_COARSE of linux/time.h, which the time module does not name


def settled(changed_ns: int, read_ns: int, margin_ns: int) -> bool:
    """Whether every change after `read_ns` will show: it cannot get the stamp `changed_ns` again.

    Args:
        changed_ns: the change time found.
        read_ns: `tick_ns` before the bytes (or names) were read.
        margin_ns: extra doubt, by file system.
    """
    if changed_ns % 10_000_000 == 0:
        # Rounded to 10 ms, a second or two (exFAT, ext3, FAT): round down the same way.
        margin_ns = max(margin_ns, 2 * _SECOND_NS)
    return changed_ns + margin_ns < read_ns


_OF_THE_KERNEL = {
    0x9FA0: "proc",
    0x62656572: "sysfs",
    0x27E0EB: "cgroup",
    0x63677270: "cgroup2",
    0x64626720: "debugfs",
    0x74726163: "tracefs",
    0x73636673: "securityfs",
    0xCAFE4A11: "bpf",
    0x1CD1: "devpts",
    0x6165676C: "pstore",
    0xDE5E81E4: "efivarfs",
    0x62656570: "configfs",
    0x19800202: "mqueue",
    0xF97CFF8C: "selinuxfs",
    0x42494E4D: "binfmt_misc",
}
"""What looks like files and is the kernel itself. Values from linux/magic.h."""


class _Statfs(ctypes.Structure):
    _fields_ = (("f_type", ctypes.c_long), ("rest", ctypes.c_byte * 248))


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _magic(fd: int) -> int:
    buffer = _Statfs()
    if _libc().fstatfs(fd, ctypes.byref(buffer)) != 0:
        return 0
    return int(buffer.f_type) & 0xFFFFFFFF


def file_system(fd: int) -> str | None:
    """The file system of `fd`, if its directory times and its clock can be relied on; else None."""
    return _TRUSTED.get(_magic(fd))


def kernel_file_system(fd: int) -> str | None:
    """The file system of `fd`, if its files are the kernel's own; else None."""
    return _OF_THE_KERNEL.get(_magic(fd))


def clock_offset_ns() -> int:
    """Wall clock minus the clock since boot: it falls when somebody sets the wall clock back.

    The two cannot be read at once, and a thread may lose its CPU between them; so the wall clock is
    read between two readings of the other, again until they are close to each other.
    """
    narrowest = offset = 0
    for _ in range(_READINGS_MOST):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        wall = time.time_ns()
        width = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - before
        if not narrowest or width < narrowest:
            narrowest, offset = width, wall - before - width // 2
        if width < CLOCK_JITTER_NS // 2:
            break
    return offset


_READINGS_MOST = 100
