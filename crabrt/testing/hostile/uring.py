"""One write through io_uring: no ``write`` call happens, so who watches calls sees none.

Only what that takes of the interface is here: a ring of one entry, submitted and awaited by one
``io_uring_enter``. Layouts are those of the kernel's ``include/uapi/linux/io_uring.h``.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct

_SETUP, _ENTER = 425, 426  # the same numbers on every architecture
_GETEVENTS = 1
_OP_WRITE = 23
_FEAT_SINGLE_MMAP = 1
_OFFSET_RINGS, _OFFSET_ENTRIES = 0, 0x10000000
_PARAMS_BYTES, _ENTRY_BYTES, _RESULT_BYTES = 120, 64, 16

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"io_uring: {os.strerror(error)}")
    return result


def write(handle: int, data: bytes, offset: int) -> int:
    """Write `data` at `offset`; how many bytes were written.

    Raises:
        OSError: the kernel has no io_uring (ENOSYS), forbids it (EPERM), or the write failed.
    """
    params = ctypes.create_string_buffer(_PARAMS_BYTES)
    ring = _call(_SETUP, ctypes.c_uint(1), params)
    try:
        return _write_by(ring, params.raw, handle, data, offset)
    finally:
        os.close(ring)


def _write_by(ring: int, params: bytes, handle: int, data: bytes, offset: int) -> int:
    sq_entries, cq_entries, _flags, _cpu, _idle, features = struct.unpack_from("=6I", params)
    _sq_head, sq_tail, _sq_mask, _, _, _, sq_array, _ = struct.unpack_from("=8I", params, 40)
    cq_head, cq_tail, cq_mask, _, _, cqes, _, _ = struct.unpack_from("=8I", params, 80)
    if not features & _FEAT_SINGLE_MMAP:
        raise OSError(95, "io_uring: the kernel is older than 5.4")
    size = max(sq_array + sq_entries * 4, cqes + cq_entries * _RESULT_BYTES)
    buffer = ctypes.create_string_buffer(data, len(data))
    with (
        mmap.mmap(ring, size, offset=_OFFSET_RINGS) as rings,
        mmap.mmap(ring, sq_entries * _ENTRY_BYTES, offset=_OFFSET_ENTRIES) as entries,
    ):
        entry = struct.pack(
            "=BBHiQQIIQ", _OP_WRITE, 0, 0, handle, offset, ctypes.addressof(buffer), len(data), 0, 7
        )
        entries[: len(entry)] = entry
        struct.pack_into("=I", rings, sq_array, 0)
        struct.pack_into("=I", rings, sq_tail, 1)
        _call(
            _ENTER,
            ctypes.c_int(ring),
            ctypes.c_uint(1),
            ctypes.c_uint(1),
            ctypes.c_uint(_GETEVENTS),
            ctypes.c_void_p(None),
            ctypes.c_size_t(0),
        )
        (head,) = struct.unpack_from("=I", rings, cq_head)
        (tail,) = struct.unpack_from("=I", rings, cq_tail)
        (mask,) = struct.unpack_from("=I", rings, cq_mask)
        if head == tail:
            raise OSError(5, "io_uring: no completion came")
        _mark, result, _ = struct.unpack_from("=QiI", rings, cqes + (head & mask) * _RESULT_BYTES)
        struct.pack_into("=I", rings, cq_head, head + 1)
    if result < 0:
        raise OSError(-result, f"io_uring: {os.strerror(-result)}")
    return int(result)
