"""The four system calls that fanotify takes, and the numbers they are called with.

The standard library has none of them, so they are reached through ctypes. Values from
linux/fanotify.h and linux/fcntl.h. Everything here raises plain ``OSError``: what an errno means
for somebody who wants to watch is decided in `opening`.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from typing import Final

MODIFY: Final = 0x2
ATTRIB: Final = 0x4
CLOSE_WRITE: Final = 0x8
MOVED_FROM: Final = 0x40
MOVED_TO: Final = 0x80
CREATE: Final = 0x100
DELETE: Final = 0x200
DELETE_SELF: Final = 0x400
Q_OVERFLOW: Final = 0x4000
ONDIR: Final = 0x4000_0000

CONTENT: Final = MODIFY | CLOSE_WRITE | ATTRIB
"""What is told of an object, whichever name it was reached by."""

NAMES: Final = CREATE | DELETE | MOVED_FROM | MOVED_TO
"""What is told of a name in a directory."""

MASK: Final = CONTENT | NAMES | DELETE_SELF | ONDIR
"""All that is asked for. Neither opening nor reading is: a search through a tree costs nothing."""

_CLOEXEC, _NONBLOCK, _UNLIMITED_QUEUE = 0x1, 0x2, 0x10
_REPORT = 0x200 | 0x400 | 0x800 | 0x1000  # FID, DIR_FID, NAME, TARGET_FID
_MARK_ADD, _MARK_FILESYSTEM = 0x1, 0x100
_AT_EMPTY_PATH = 0x1000
_MAX_HANDLE_BYTES = 128
_HANDLE = struct.Struct("=Ii")

Handle = bytes
"""``struct file_handle``: length, type and the file system's own bytes for an object. Names the
object for as long as it exists, through every rename, and never another one after it."""


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fanotify_init.argtypes = (ctypes.c_uint, ctypes.c_uint)
    libc.fanotify_mark.argtypes = (
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint64,
        ctypes.c_int,
        ctypes.c_char_p,
    )
    libc.name_to_handle_at.argtypes = (
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_int),
        ctypes.c_int,
    )
    libc.open_by_handle_at.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
    return libc


def _raise(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")


def new_group(*, unlimited: bool) -> int:
    """A fanotify group that reports directories, names and objects; its descriptor, non-blocking.

    Args:
        unlimited: its queue is bounded by memory only, not by ``max_queued_events``.

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN, EINVAL before Linux 5.17, ENOSYS, EMFILE.
    """
    flags = _CLOEXEC | _NONBLOCK | _REPORT | (_UNLIMITED_QUEUE if unlimited else 0)
    fd: int = _libc().fanotify_init(flags, os.O_RDONLY | os.O_CLOEXEC)
    if fd < 0:
        raise _raise("fanotify_init")
    return fd


def mark_file_system(group: int, fd: int) -> None:
    """Have `group` report all of `MASK` on the whole file system of the directory `fd`.

    Raises:
        OSError: EPERM, ENODEV (no file system id), EOPNOTSUPP (no file handles), EXDEV (a btrfs
            subvolume), ENOMEM, ENOSPC.
    """
    flags = _MARK_ADD | _MARK_FILESYSTEM
    if _libc().fanotify_mark(group, flags, MASK, fd, b".") != 0:
        raise _raise("fanotify_mark")


def handle_of(fd: int) -> Handle:
    """The handle of what is open at `fd`.

    Raises:
        OSError: EOPNOTSUPP where the file system has none.
    """
    buffer = ctypes.create_string_buffer(_HANDLE.size + _MAX_HANDLE_BYTES)
    _HANDLE.pack_into(buffer, 0, _MAX_HANDLE_BYTES, 0)
    mount_id = ctypes.c_int()
    done = _libc().name_to_handle_at(fd, b"", buffer, ctypes.byref(mount_id), _AT_EMPTY_PATH)
    if done != 0:
        raise _raise("name_to_handle_at")
    (length, _) = _HANDLE.unpack_from(buffer)
    return buffer.raw[: _HANDLE.size + length]


def open_handle(mount: int, handle: Handle) -> int:
    """A descriptor (``O_PATH``) of the object of `handle`, as it lies in the mount of `mount`.

    Raises:
        OSError: ESTALE if it no longer exists; EPERM without CAP_DAC_READ_SEARCH.
    """
    fd: int = _libc().open_by_handle_at(mount, handle, os.O_PATH | os.O_CLOEXEC)
    if fd < 0:
        raise _raise("open_by_handle_at")
    return fd
