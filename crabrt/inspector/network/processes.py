"""What ``/proc`` says of the run's processes: who they are."""

from __future__ import annotations

import contextlib
import os
import time

from crabrt.workspace.procfs import read, threads

_STARTED = 19  # of /proc/PID/stat, counted after the name
_ENDED = frozenset({b"Z", b"X"})


def members(own: int, mark: bytes) -> list[int]:
    """The live processes that descend from `own`, it included, and those that say they do.

    Args:
        own: a process.
        mark: ``NAME=VALUE`` in the environment of the others; empty: only descendants are told.
    """
    parents = {int(name): _parent(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    found = {own}
    for pid in parents:
        line = []
        at: int | None = pid
        while at is not None and at > 1 and at not in found and at not in line:
            line.append(at)
            at = parents.get(at)
        if at in found:
            found.update(line)
    if mark:
        found.update(pid for pid in parents if pid not in found and _says(pid, mark))
    return sorted(found)


def _parent(pid: int) -> int | None:
    try:
        return int(read(b"/proc/%d/stat" % pid).rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def _says(pid: int, mark: bytes) -> bool:
    """Whether its environment has `mark`; of several runs in one process, it names all."""
    name, _, value = mark.partition(b"=")
    try:
        lines = read(b"/proc/%d/environ" % pid).split(b"\0")
    except OSError:
        return False
    return any(
        value in line[len(name) + 1 :].split(b",") for line in lines if line.startswith(name + b"=")
    )


def begun_since(pids: list[int], time_ns: int) -> bool:
    """Whether any of these processes lives and is younger than `time_ns` (monotonic)."""
    asleep_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    for pid in pids:
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = read(b"/proc/%d/stat" % pid).rpartition(b")")[2].split()
            begun_ns = (int(fields[_STARTED]) + 1) * tick_ns - asleep_ns
            if fields[0] not in _ENDED and begun_ns >= time_ns:
                return True
    return False


def threads_of(pids: list[int]) -> list[int]:
    """All threads of live processes."""
    found: list[int] = []
    for pid in pids:
        with contextlib.suppress(OSError):
            found += threads(pid)
    return found


def command(pid: int) -> str:
    """The name of a live process; empty if it has ended."""
    try:
        return read(b"/proc/%d/comm" % pid).decode("utf-8", "replace").rstrip("\n")
    except OSError:
        return ""


def network_of(pid: int) -> int | None:
    """The number of the network namespace that a process is in; None if it has ended."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None
