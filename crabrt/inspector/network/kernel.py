"""The system calls of perf events and of a tracefs that nobody sees mounted.

The standard library has none of them, so they are reached through ctypes. Values from
linux/perf_event.h and linux/mount.h. Everything here raises plain ``OSError``: what an errno means
for somebody who wants to watch is decided in `tracing`.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import platform
import struct
from typing import Final

_TRACEPOINT, _SOFTWARE, _DUMMY = 2, 1, 9
_SAMPLE_TID, _SAMPLE_TIME, _SAMPLE_RAW = 1 << 1, 1 << 2, 1 << 10
_SAMPLE_REGS, _SAMPLE_STACK = 1 << 12, 1 << 13
_DISABLED, _INHERIT, _COMM, _SAMPLE_ID_ALL, _CLOCKID = 1, 1 << 1, 1 << 9, 1 << 18, 1 << 25
_MONOTONIC = 1
_CLOEXEC = 8
_SET_OUTPUT, _SET_FILTER, _ENABLE = 0x2405, 0x40082406, 0x2400
_ATTR = struct.Struct("=IIQQQQQIIQQQQIiQIHHIIQQ")

STACK_BYTES: Final = 2048
"""How much of a caller's stack is copied: an address mostly lies within."""

NUMBERS: Final = {"x86_64": 298, "aarch64": 241}  # perf_event_open
_STACK_POINTER: Final = {"x86_64": 7, "aarch64": 31}  # asm/perf_regs.h
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # the same on every architecture
_FSCONFIG_CREATE, _CLOEXEC_FS = 6, 1


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def _call(name: str, number: int, *arguments: object) -> int:
    result: int = _libc().syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result


def open_tracefs() -> int:
    """A descriptor of tracefs's root, mounted nowhere.

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN, ENODEV where the kernel has no tracefs.
    """
    context = _call("fsopen", _FSOPEN, b"tracefs", ctypes.c_uint(_CLOEXEC_FS))
    try:
        fd, none = ctypes.c_int(context), ctypes.c_void_p(None)
        _call("fsconfig", _FSCONFIG, fd, ctypes.c_uint(_FSCONFIG_CREATE), none, none, 0)
        return _call("fsmount", _FSMOUNT, fd, ctypes.c_uint(_CLOEXEC_FS), ctypes.c_uint(0))
    finally:
        os.close(context)


def open_tracepoint(number: int, thread: int, cpu: int, *, stack: bool = False) -> int:
    """An event that samples tracepoint `number` in `thread`, and in all that it begins from now on.

    Args:
        number: the tracepoint's id.
        thread: whose.
        cpu: where; inherited events can only be read from a buffer for each processor.
        stack: samples carry a copy of the caller's stack.

    Raises:
        OSError: EPERM, EACCES (no privilege), ESRCH (it ended), EMFILE, ENODEV (no such CPU).
    """
    sample = _SAMPLE_TID | _SAMPLE_TIME | _SAMPLE_RAW
    if stack:
        sample |= _SAMPLE_REGS | _SAMPLE_STACK
    return _open(_TRACEPOINT, number, sample, at=(thread, cpu), stack=stack)


def open_names(thread: int, cpu: int) -> int:
    """An event that tells the names that `thread`, and all that it begins, take on.

    Raises:
        OSError: see `open_tracepoint`.
    """
    sample = _SAMPLE_TID | _SAMPLE_TIME
    return _open(_SOFTWARE, _DUMMY, sample, at=(thread, cpu), flags=_COMM | _SAMPLE_ID_ALL)


def _open(
    kind: int,
    config: int,
    sample: int,
    *,
    at: tuple[int, int],
    flags: int = 0,
    stack: bool = False,
) -> int:
    machine = platform.machine()
    registers = 1 << _STACK_POINTER[machine] if stack else 0
    attr = _ATTR.pack(
        kind, _ATTR.size, config, 1, sample, 0, flags | _DISABLED | _INHERIT | _CLOCKID,
        0, 0, 0, 0, 0, registers, STACK_BYTES if stack else 0, _MONOTONIC, 0, 0, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip
    if machine not in NUMBERS:
        raise OSError(38, f"perf_event_open: its number on {machine} is not known")
    buffer = ctypes.create_string_buffer(attr, len(attr))
    return _call(
        "perf_event_open", NUMBERS[machine], buffer, ctypes.c_int(at[0]), ctypes.c_int(at[1]),
        ctypes.c_int(-1), ctypes.c_ulong(_CLOEXEC),
    )  # fmt: skip


def begin(event: int, *, into: int | None = None, only: str = "") -> None:
    """Let `event` run.

    Args:
        event: made by one of the functions above.
        into: the event whose buffer takes its samples; None if it has one.
        only: a condition on the tracepoint's fields.

    Raises:
        OSError: EINVAL if the condition is not understood.
    """
    if only:
        fcntl.ioctl(event, _SET_FILTER, only.encode() + b"\0")
    if into is not None:
        fcntl.ioctl(event, _SET_OUTPUT, into)
    fcntl.ioctl(event, _ENABLE, 0)
