"""The processes of this machine as ``/proc`` tells them, and who descends from whom."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Final, NamedTuple

from crabrt.workspace.procfs import read, threads

_STATE, _PARENT, _GROUP, _SESSION, _STARTED = 0, 1, 2, 3, 19
"""Fields of ``/proc/PID/stat``, counted after the name (proc_pid_stat(5))."""

_ENDED: Final = frozenset({"Z", "X"})
_SCHEDULED_CPU_TIME: Final = 2  # CPUCLOCK_SCHED of linux/posix-timers.h, for a whole process
_TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_ATTEMPTS: Final = 20
_WALKS: Final = 8


class Process(NamedTuple):
    """A process at one moment.

    Attributes:
        pid, parent, group, session: numbers, as this PID namespace has them; 0: outside of it.
        started: when it began, in clock ticks since boot; with `pid` its identity.
        state: the kernel's letter: ``R`` runs or could, ``S`` sleeps, ``T`` is stopped.
    """

    pid: int
    parent: int
    group: int
    session: int
    started: int
    state: str

    @property
    def identity(self) -> tuple[int, int]:
        """What tells it from every other process of this boot."""
        return self.pid, self.started

    @property
    def ended(self) -> bool:
        """Whether it is only waited for."""
        return self.state in _ENDED

    @property
    def began_ns(self) -> int:
        """When it began, by ``time.monotonic_ns``: up to a clock tick after this."""
        asleep_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        return self.started * _TICK_NS - asleep_ns


TICK_NS: Final = _TICK_NS
"""How coarse `Process.began_ns` is."""


def look(pid: int) -> Process | None:
    """The process `pid`; None if there is none.

    Raises:
        OSError: it cannot be looked at.
    """
    try:
        line = read(b"/proc/%d/stat" % pid).decode("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = line.rpartition(") ")[2].split()
    try:
        return Process(
            pid,
            int(fields[_PARENT]),
            int(fields[_GROUP]),
            int(fields[_SESSION]),
            int(fields[_STARTED]),
            fields[_STATE],
        )
    except (IndexError, ValueError) as error:
        raise OSError(f"/proc/{pid}/stat is not understood") from error


def is_alive(who: tuple[int, int]) -> bool:
    """Whether the process of that number and start time lives; not if it cannot be looked at."""
    try:
        found = look(who[0])
    except OSError:
        return False
    return found is not None and found.identity == who and not found.ended


def descendants(pid: int) -> list[Process]:
    """All that descends from `pid`, parents before children; the process itself is left out.

    Whoever loses its parent meanwhile comes to `pid`, if that is a subreaper, when its children
    were read already. So they are read again in the end, until nobody has come.

    Raises:
        OSError: they cannot be listed.
    """
    found: dict[int, Process] = {}
    waiting = list(children(pid))
    for _ in range(_WALKS):
        while waiting:
            child = waiting.pop()
            process = look(child) if child not in found else None
            if process is not None:
                found[child] = process
                waiting += children(child)
        waiting = [child for child in children(pid) if child not in found]
        if not waiting:
            break
    return list(found.values())


def children(pid: int) -> frozenset[int]:
    """The children of all threads of `pid`; none if it has ended.

    The kernel's lists may leave out a child while another one goes (proc_pid_children(5)). Two
    equal readings one after the other prove that none went during the first.

    Raises:
        OSError: they cannot be read, or never stand still.
    """
    before: frozenset[int] | None = None
    for _ in range(_ATTEMPTS):
        now = _children(pid)
        if now == before:
            return now
        before = now
    raise OSError(f"the children of {pid} change all the time")


def _children(pid: int) -> frozenset[int]:
    found: list[int] = []
    is_told = False
    for thread in _threads(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # this thread ended
            found += map(int, read(b"/proc/%d/task/%d/children" % (pid, thread)).split())
            is_told = True
    if not is_told and os.path.exists(f"/proc/{pid}"):
        return _by_parent(pid)
    return frozenset(found)


def _threads(pid: int) -> list[int]:
    try:
        return threads(pid)
    except (FileNotFoundError, ProcessLookupError):
        return []


def _by_parent(pid: int) -> frozenset[int]:
    """For kernels without lists of children (CONFIG_PROC_CHILDREN)."""
    everybody = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return frozenset(one.pid for one in everybody if one is not None and one.parent == pid)


def inner_number(pid: int) -> int:
    """What a process is called in its own PID namespace; `pid` if that is ours or not known."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in read(b"/proc/%d/status" % pid).splitlines():
            if line.startswith(b"NSpid:"):
                return int(line.split()[-1])
    return pid


def command(pid: int) -> tuple[bytes, ...]:
    """The argument vector of a process; its name in brackets if it has none, as ps shows it."""
    try:
        line = read(b"/proc/%d/cmdline" % pid)
        if line:
            return tuple(line.removesuffix(b"\0").split(b"\0"))
        return (b"[%s]" % read(b"/proc/%d/comm" % pid).rstrip(b"\n"),)
    except OSError:
        return ()


def directory(pid: int) -> bytes:
    """Where a process works; empty if that cannot be read."""
    try:
        return os.readlink(b"/proc/%d/cwd" % pid)
    except OSError:
        return b""


def pulse(pid: int) -> int | None:
    """How long all threads of `pid` ran, in nanoseconds, if none of them runs now; else None.

    Equal pulses of one process, one after the other: it did not run in between. The clock is exact
    to the nanosecond, but lags behind a thread that is on a CPU, so one that could be has none.
    """
    try:
        if _may_run(pid):
            return None
        return time.clock_gettime_ns((~pid << 3) | _SCHEDULED_CPU_TIME)
    except OSError:
        return None


def _may_run(pid: int) -> bool:
    for thread in threads(pid):
        line = read(b"/proc/%d/task/%d/stat" % (pid, thread))
        if line.rpartition(b") ")[2][:1] == b"R":
            return True
    return False
