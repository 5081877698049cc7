"""Stops that no parent sees.

The kernel tells a parent that a child stopped: by wait(2) with ``WUNTRACED``, and by SIGCHLD with
``CLD_STOPPED``. A shell takes its terminal back from who stopped, script(1) stops itself. So a
parent stands before its children are told to, for wait(2) looks at children before it heeds a
signal of its own; children go on before it does; and a SIGCHLD that waits for it then is taken from
it, as it would take it itself. So is the SIGCONT that sets going who catches that, as vim does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from crabrt.process import table, tracing
from crabrt.process.tracing import Inside, Traced
from crabrt.workspace.procfs import read, threads

_POLL_S: Final = 0.001
_STOPPED: Final = frozenset({b"T", b"t", b"Z", b"X"})
_CHILD: Final = 1 << signal.SIGCHLD - 1
_CONTINUE: Final = 1 << signal.SIGCONT - 1
_SIGTIMEDWAIT, _SIGQUEUEINFO, _WAITID = 128, 129, 247  # x86-64
_OPTIONS: Final = {b"61": 2, b"247": 3}
"""Of wait4(2) and waitid(2), which argument it is."""
_SET_BYTES: Final = 8
_NO_TIME: Final = bytes(16)  # struct timespec
_TAKES: Final = (Inside(0), 0, Inside(_SET_BYTES), _SET_BYTES)
"""Arguments of rt_sigtimedwait(2): a set, and no time after it."""
_OF_CHILD: Final = struct.Struct("=iii4xiIi4xQQ")
"""The beginning of ``siginfo_t``: number, errno, code; of a child: its number, its user, its
status, what CPU time it used."""
_SIGNAL_BYTES: Final = 128
_EXITED, _KILLED, _DUMPED, _IS_STOPPED, _CONTINUED = 1, 2, 3, 5, 6  # CLD_EXITED and so on
_STOPS: Final = frozenset({(_IS_STOPPED, signal.SIGSTOP), (_CONTINUED, signal.SIGCONT)})
"""What a parent is told by us: code and status."""
_MASKS: Final = frozenset({b"SigPnd", b"ShdPnd", b"SigBlk", b"SigCgt"})
_CORE: Final = 0x80
_USER_TIME, _SYSTEM_TIME, _EXIT_CODE = 11, 12, 49
"""Fields of ``/proc/PID/stat``, counted after the name (proc_pid_stat(5))."""


def stands(pid: int) -> bool:
    """Whether no thread of a process runs on; so too if it ended."""
    try:
        return all(_state(pid, thread) in _STOPPED for thread in threads(pid))
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        return False


def _state(pid: int, thread: int) -> bytes:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # this thread ended
        return read(b"/proc/%d/task/%d/stat" % (pid, thread)).rpartition(b") ")[2][:1]
    return b"X"


def generations(pids: Collection[int]) -> list[list[int]]:
    """Processes by how many of their ancestors are among them: parents first."""
    parents = {pid: _parent(pid) for pid in pids}
    found: defaultdict[int, list[int]] = defaultdict(list)
    for pid in pids:
        above, one = 0, parents[pid]
        while one in parents and above < len(parents):
            above, one = above + 1, parents[one]
        found[above].append(pid)
    return [found[above] for above in sorted(found)]


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        found = table.look(pid)
        if found is not None:
            return found.parent
    return 0


def stop(pids: Collection[int], tell: Callable[[int], None], limit_s: float) -> bool:
    """Stop processes, each when its parents stand; whether all stand within the limit.

    After it they are told all the same.
    """
    until = time.monotonic() + limit_s
    waiting: list[int] = []
    for generation in generations(pids):
        for pid in generation:
            tell(pid)
        waiting += generation
        while waiting := [pid for pid in waiting if not stands(pid)]:
            if time.monotonic() > until:
                break
            time.sleep(_POLL_S)
    return not waiting


def go_on(stopped: Collection[int], tell: Callable[[int], None]) -> None:
    """Have processes go on that stand still, each when its children do; see also `take_back`.

    Args:
        stopped: all that stand still.
        tell: is called for each of them; it sends SIGCONT, or leaves it stopped.
    """
    take_back(stopped)
    for generation in reversed(generations(stopped)):
        told: dict[int, list[int]] = {}
        if tracing.SUPPORTED:
            families = _families(generation, stopped)
            told = {parent: families[parent] for parent in families if _heeds(parent)}
        heeded = {pid for children in told.values() for pid in children}
        for pid in generation:
            is_seen = pid in heeded or (tracing.SUPPORTED and _catches(pid, _CONTINUE))
            if is_seen and stands(pid):
                _go_on_unseen(pid, tell)
            else:
                tell(pid)
        _take_back_from(told, went_on=True)


def _go_on_unseen(pid: int, tell: Callable[[int], None]) -> None:
    """Have a process go on that is not told so; when this is done, its parent has been."""
    is_told = False
    wanted = _CONTINUE.to_bytes(_SET_BYTES, "little") + _NO_TIME
    try:
        with contextlib.ExitStack() as held:
            first = held.enter_context(Traced(pid))
            for thread in threads(pid):
                if thread != pid:
                    held.enter_context(Traced(thread))
            is_told = True
            tell(pid)
            first.call(_SIGTIMEDWAIT, *_TAKES, memory=wanted)
    except OSError:  # it ended, or cannot be made to
        if not is_told:
            tell(pid)


def take_back(stopped: Collection[int]) -> None:
    """Take from processes that stand still what they were told of each other's stops.

    Where that cannot be (another kind of machine, a program for 32 bits) they will see it.
    """
    if not tracing.SUPPORTED:
        return
    _take_back_from(_families(stopped, stopped))


def _take_back_from(families: Mapping[int, Sequence[int]], *, went_on: bool = False) -> None:
    for parent, children in families.items():
        with contextlib.suppress(OSError):  # it ended, or cannot be made to
            if stands(parent) and (went_on or _is_told(parent)):
                with Traced(parent) as process:
                    if went_on:
                        _wait_for(process, parent, children)
                    if _is_told(parent):
                        _take_back(process, parent, children)


def _families(children: Iterable[int], among: Collection[int]) -> dict[int, list[int]]:
    """Those of `children` whose parents are `among` some, by these."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for pid in children:
        found[_parent(pid)].append(pid)
    return {parent: found[parent] for parent in found.keys() & set(among)}


def _is_told(pid: int) -> bool:
    """Whether a SIGCHLD waits for a process, and none for its first thread alone."""
    masks = _masks(pid)
    return bool(masks.get(b"ShdPnd", 0) & _CHILD and not masks.get(b"SigPnd", 0) & _CHILD)


def _heeds(pid: int) -> bool:
    """Whether a process is told when children go on: by a signal, or since it waits for that."""
    if _catches(pid, _CHILD):
        return True
    with contextlib.suppress(OSError):
        for thread in threads(pid):
            call, *words = read(b"/proc/%d/task/%d/syscall" % (pid, thread)).split()
            place = _OPTIONS.get(call)
            if place is not None and int(words[place], 16) & os.WCONTINUED:
                return True
    return False


def _catches(pid: int, which: int) -> bool:
    """Whether a signal, as a set of one, would be more to a process than nothing."""
    with contextlib.suppress(OSError):
        masks = _masks(pid)
        return bool((masks.get(b"SigCgt", 0) | masks.get(b"SigBlk", 0)) & which)
    return False


def _masks(pid: int) -> dict[bytes, int]:
    masks = {}
    for line in read(b"/proc/%d/status" % pid).splitlines():
        name, _, value = line.partition(b":")
        if name in _MASKS:
            masks[name] = int(value, 16)
    return masks


def _wait_for(process: Traced, parent: int, children: Iterable[int]) -> None:
    """Have a parent wait for children that went on, as others wait for who ended: that is over."""
    for child in children:
        number = _number_for(parent, child)
        process.call(_WAITID, os.P_PID, number, 0, os.WCONTINUED | os.WNOHANG)


def _take_back(process: Traced, parent: int, children: Iterable[int]) -> None:
    ours = {number for child in children for number in _numbers(child)}
    if not any(_tells_of_a_stop(told, ours) for told in process.waiting()):
        return
    wanted = _CHILD.to_bytes(_SET_BYTES, "little") + _NO_TIME
    if process.call(_SIGTIMEDWAIT, *_TAKES, memory=wanted) != signal.SIGCHLD:
        return
    told = _of_one_that_ended(parent)  # which the kernel does not tell while another waits
    if told:
        to = table.inner_number(parent)
        if process.call(_SIGQUEUEINFO, to, signal.SIGCHLD, Inside(0), memory=told):
            os.kill(parent, signal.SIGCHLD)


def _tells_of_a_stop(told: bytes, ours: Collection[int]) -> bool:
    number, _, code, pid, _, status, _, _ = _OF_CHILD.unpack_from(told)
    return number == signal.SIGCHLD and (code, status) in _STOPS and pid in ours


def _of_one_that_ended(parent: int) -> bytes:
    """What the kernel tells of a child that ended and is not waited for; empty if there is none."""
    for child in table.children(parent):
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = read(b"/proc/%d/stat" % child).rpartition(b") ")[2].split()
            if fields[0] != b"Z":
                continue
            number, user = _number_for(parent, child), os.stat(f"/proc/{child}").st_uid
            code, by = divmod(int(fields[_EXIT_CODE]), 256)
            how = _EXITED if not by else _DUMPED if by & _CORE else _KILLED
            times = int(fields[_USER_TIME]), int(fields[_SYSTEM_TIME])
            status = by & ~_CORE if by else code
            told = _OF_CHILD.pack(signal.SIGCHLD, 0, how, number, user, status, *times)
            return told.ljust(_SIGNAL_BYTES, b"\0")
    return b""


def _number_for(parent: int, child: int) -> int:
    """What a process is called where its parent is; 0 if that is not known."""
    numbers, depth = _numbers(child), len(_numbers(parent))
    return numbers[depth - 1] if len(numbers) >= depth else 0


def _numbers(pid: int) -> list[int]:
    """What a process is called, in our PID namespace and in each one farther in."""
    with contextlib.suppress(OSError):
        for line in read(b"/proc/%d/status" % pid).splitlines():
            if line.startswith(b"NSpid:"):
                return [int(word) for word in line.split()[1:]]
    return [pid]
