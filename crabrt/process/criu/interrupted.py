"""System calls that CRIU interrupts and the kernel cannot go on with: they begin anew.

Whoever sleeps in poll(2) is told EINTR when CRIU lets go of it, and when it comes back from its
image, although no signal came: the kernel's note of where to go on is overwritten by what CRIU has
the process do. Programs that catch no signal do not expect that: ``tail -f`` ends. So in the image
such a call begins anew; and where the tree goes on it is stopped before CRIU lets go, and the call
begins anew in the process too. A time limit of such a call begins anew with it.

Left as they are: nanosleep(2), which tells the program what is left of the time, and whoever has a
signal waiting that it catches: that one is to see EINTR.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from crabrt.process import table
from crabrt.process.criu import tracing, wire
from crabrt.process.criu.tracing import Traced
from crabrt.workspace.procfs import read, threads

_POLL: Final = 7  # x86-64
CALLS: Final = frozenset({_POLL})

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
            if tracing.SUPPORTED and call != [b"running"] and int(call[0]) in CALLS:
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
                    traced.begin_anew(CALLS)


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
