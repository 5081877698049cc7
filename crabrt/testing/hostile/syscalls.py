"""System calls that Python does not wrap: fallocate and its modes, renameat2, reflink."""

from __future__ import annotations

import ctypes
import fcntl
import os

FALLOC_KEEP_SIZE = 0x01
FALLOC_PUNCH_HOLE = 0x02
FALLOC_COLLAPSE_RANGE = 0x08
FALLOC_ZERO_RANGE = 0x10
FALLOC_INSERT_RANGE = 0x20
RENAME_EXCHANGE = 2

_AT_FDCWD = -100
_FICLONE = 0x40049409

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.renameat2.argtypes = [
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
]


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def fallocate(handle: int, mode: int, offset: int, length: int) -> None:
    """``fallocate(2)`` with its modes. Raises OSError."""
    _check(_libc.fallocate(handle, mode, offset, length), "fallocate")


def exchange(first: bytes, second: bytes) -> None:
    """Swap two paths atomically (``renameat2`` with ``RENAME_EXCHANGE``). Raises OSError."""
    _check(
        _libc.renameat2(_AT_FDCWD, first, _AT_FDCWD, second, RENAME_EXCHANGE),
        "renameat2",
    )


def reflink(target: int, source: int) -> None:
    """Make `target` share all of `source`'s extents (``FICLONE``). Raises OSError."""
    fcntl.ioctl(target, _FICLONE, source)
