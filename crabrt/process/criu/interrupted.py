"""System calls that CRIU interrupts and the kernel cannot go on with: they begin anew.

Whoever sleeps in poll(2) is told EINTR when CRIU lets go of it, and when it comes back from its
image, although no signal came: the kernel's note of where to go on is overwritten by what CRIU has
the process do. Programs that catch no signal do not expect that: ``tail -f`` ends. So in the image
such a call begins anew; and where the tree goes on it is stopped before CRIU lets go, and the call
begins anew in the process too. A time limit of such a call begins anew with it.

epoll_wait(2) and sigwaitinfo(2) are told EINTR after any stop (signal(7)). Programs expect that,
but do something then: they differ from their image, and would be imaged again and again. So those
begin anew too. A time limit of theirs is stretched only once: where one image follows the other, it
would never be over.

Left as they are: nanosleep(2), which tells the program what is left of the time, and whoever has a
signal waiting that it catches: that one is to see EINTR.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from crabrt.process import table, tracing
from crabrt.process.criu import wire
from crabrt.process.tracing import Interrupted, Traced
from crabrt.workspace.procfs import read, threads

_POLL, _EPOLL_WAIT, _EPOLL_PWAIT, _EPOLL_PWAIT2 = 7, 232, 281, 441  # x86-64
_SPOILED: Final = frozenset({_POLL})
"""Told EINTR by CRIU alone, and not by a stop."""
_SIGTIMEDWAIT: Final = 128
_IN_MS: Final = frozenset({_EPOLL_WAIT, _EPOLL_PWAIT})
_LIMITS: Final = {_EPOLL_WAIT: 3, _EPOLL_PWAIT: 3, _EPOLL_PWAIT2: 3, _SIGTIMEDWAIT: 2}
"""Which argument is the limit of a call: milliseconds, or the address of a ``struct timespec``."""
CALLS: Final = frozenset({_POLL, *_LIMITS})

_ends: Final[dict[tuple[int, int], float]] = {}
"""Until when a call of a thread that has a limit may begin anew, by ``time.monotonic``."""
_ENDS_MOST: Final = 1000

_MACHINE, _THREAD_INFO = 1, 2  # core_entry of core.proto
_X86_64: Final = 1
_GENERAL: Final = 2  # thread_info_x86.gpregs
_AX, _ORIG_AX, _IP, _MODE = 11, 16, 17, 28  # user_x86_regs_entry of core-x86.proto
_COMPAT: Final = 2
_TASK, _TASK_STATE, _STOP_SIGNAL = 3, 1, 21  # core_entry.tc; of task_core_entry
_TASK_ALIVE, _TASK_STOPPED = 1, 3
_EINTR: Final = (1 << 64) - 4
_ENTERS_BYTES: Final = 2
_MASKS: Final = (b"SigPnd", b"ShdPnd", b"SigBlk", b"SigCgt")


def is_in_one(pid: int) -> bool:
    """Whether a thread of a process sleeps in such a call now."""
    with contextlib.suppress(OSError, ValueError):  # it ended
        for thread in threads(pid):
            call = read(b"/proc/%d/task/%d/syscall" % (pid, thread)).split()[:1]
            if tracing.SUPPORTED and call != [b"running"] and int(call[0]) in _SPOILED:
                return True
    return False


def begin_anew(images: Path, numbers: Mapping[int, int]) -> bool:
    """Have interrupted calls begin anew in an image; whether there was any.

    Args:
        images: changed in place.
        numbers: of the processes of the tree, which stands still, by those that they have in their
            own PID namespace.

    Raises:
        OSError, NotUnderstood: the images cannot be used, or somebody ended.
    """
    found = False
    for pid in numbers.values():
        for thread in threads(pid):
            path = images / f"core-{table.inner_number(thread)}.img"
            core = _begun_anew(path.read_bytes()) if path.exists() else b""
            if core and not _is_signalled(thread):
                path.write_bytes(core)
                found = True
    return found


def begin_anew_in(stopped: Iterable[int]) -> None:
    """Have interrupted calls begin anew in processes that are stopped.

    Raises:
        OSError: one of them ended, or does not stand.
    """
    for pid in stopped:
        for thread in threads(pid):
            if tracing.SUPPORTED and not _is_signalled(thread):
                with Traced(thread) as traced:
                    call = traced.interrupted()
                    if call is not None and _may_begin_anew(thread, call):
                        traced.begin_anew()


def _may_begin_anew(thread: int, call: Interrupted) -> bool:
    if call.number in _SPOILED:
        return True
    if call.number not in _LIMITS:
        return False
    limit = call.words[_LIMITS[call.number]]
    if call.number not in _IN_MS:
        return not limit
    limit_ms = limit & 0x7FFF_FFFF if not limit & 0x8000_0000 else -1
    return limit_ms < 0 or _has_time(thread, limit_ms / 1e3)


def _has_time(thread: int, limit_s: float) -> bool:
    """Whether it is not longer ago than its limit that a thread's call began anew first."""
    found = table.look(thread)
    if found is None:
        return False
    now = time.monotonic()
    if len(_ends) >= _ENDS_MOST:
        _ends.clear()
    if now <= _ends.setdefault(found.identity, now + limit_s):
        return True
    del _ends[found.identity]
    return False


def as_running(images: Path, tasks: Iterable[int]) -> None:
    """Have an image say of processes that were stopped for it that they run.

    Args:
        images: changed in place.
        tasks: their numbers in their own PID namespace.

    Raises:
        OSError, NotUnderstood: the images cannot be used.
    """
    for number in tasks:
        path = images / f"core-{number}.img"
        (core,) = wire.entries(path.read_bytes(), wire.CORE_MAGIC)
        task = next(one.data for one in wire.fields(core) if one.number == _TASK)
        runs = {_TASK_STATE: wire.varint_field(_TASK_STATE, _TASK_ALIVE), _STOP_SIGNAL: b""}
        if wire.numbers(task).get(_TASK_STATE) == _TASK_STOPPED:
            task = wire.bytes_field(_TASK, wire.replaced(task, runs))
            core = wire.replaced(core, {_TASK: task})
            path.write_bytes(wire.image([core], wire.CORE_MAGIC))


def _is_signalled(thread: int) -> bool:
    """Whether a signal that is caught waits for a thread, or its process."""
    masks = {}
    for line in read(b"/proc/%d/status" % thread).splitlines():
        name, _, value = line.partition(b":")
        if name in _MASKS:
            masks[name] = int(value, 16)
    waiting, shared, blocked, caught = (masks.get(name, 0) for name in _MASKS)
    return bool((waiting | shared) & caught & ~blocked)


def _begun_anew(data: bytes) -> bytes:
    """A core image in which an interrupted call begins anew; empty if there is none in it."""
    (core,) = wire.entries(data, wire.CORE_MAGIC)
    if wire.numbers(core).get(_MACHINE) != _X86_64:
        return b""
    registers = _registers(core)
    found = wire.numbers(registers)
    is_interrupted = found.get(_AX) == _EINTR and found.get(_ORIG_AX) in CALLS
    if not is_interrupted or found.get(_MODE) == _COMPAT:
        return b""
    anew = {_AX: found[_ORIG_AX], _IP: found[_IP] - _ENTERS_BYTES}
    changed = wire.replaced(registers, {n: wire.varint_field(n, v) for n, v in anew.items()})
    info = next(one.data for one in wire.fields(core) if one.number == _THREAD_INFO)
    info = wire.replaced(info, {_GENERAL: wire.bytes_field(_GENERAL, changed)})
    core = wire.replaced(core, {_THREAD_INFO: wire.bytes_field(_THREAD_INFO, info)})
    return wire.image([core], wire.CORE_MAGIC)


def _registers(core: bytes) -> bytes:
    for field in wire.fields(core):
        if field.number == _THREAD_INFO:
            return next(
                (one.data for one in wire.fields(field.data) if one.number == _GENERAL), b""
            )
    return b""
