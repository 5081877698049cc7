"""Telling the processes of a fork from those of the original, by the files that they see.

Both carry the same environment, and say the same path of where they work. But in a fork's mount
namespaces its directory lies at the path of the original's. So a process is the fork's if it sees
the fork's directory at another path than we do, and is not the original's if it sees another
directory than we do at the original's path.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from typing import Final

from crabrt.process import orphans, table
from crabrt.process.table import Process
from crabrt.workspace.procfs import mounts

Identity = tuple[int, int]

_SLACK_NS: Final = 1_000_000_000
"""A process's beginning is told in clock ticks, and the wall clock may be set."""


def other_paths(pid: int, workspace: bytes) -> tuple[bytes, ...]:
    """Where `pid` sees the directory `workspace` beside its own path; none if it sees as we do.

    Args:
        pid: a process; one that has ended, or is not ours to look into, sees nothing.
        workspace: an absolute path, as this process has it.
    """
    try:
        if not _sees_otherwise(pid):
            return ()
        here = os.stat(workspace)
        seen = mounts(pid)
    except OSError:
        return ()
    places = {mount.point for mount in seen}
    return tuple(sorted(path for path in places - {workspace} if _is(pid, path, here)))


def is_hidden(pid: int, workspace: bytes) -> bool:
    """Whether `pid` sees another directory than we do at the path `workspace`."""
    try:
        return _sees_otherwise(pid) and not _is(pid, workspace, os.stat(workspace))
    except OSError:
        return False


def came_back(workspace: bytes, place: bytes, since_ns: int) -> list[Identity]:
    """Who came to see `workspace` at `place` since then, by a restore that could not say so.

    What else mounts a directory there (a container) is not among them: they were a run's, and say
    so. Only the first of each PID namespace is named; the others descend from it.

    Args:
        workspace: an absolute path, as this process has it.
        place: where the original's was.
        since_ns: when that restore began, by the wall clock (ns since the epoch).
    """
    found: dict[Identity, None] = {}
    for name in os.listdir("/proc"):
        pid = int(name) if name.isdecimal() else 0
        if not pid or not orphans.is_anothers(pid, (), lambda _: False):
            continue
        if place in other_paths(pid, workspace):
            first = _first(pid)
            if first is not None and _began_ns(first) > since_ns - _SLACK_NS:
                found[first.identity] = None
    return list(found)


def _first(pid: int) -> Process | None:
    """The first process of the PID namespace that `pid` is in; None if that is ours."""
    with contextlib.suppress(OSError):
        while pid > 1 and (one := table.look(pid)) is not None:
            number = table.inner_number(pid)
            if number == 1:
                return one
            pid = one.parent if number != pid else 0
    return None


def _began_ns(process: Process) -> int:
    return time.time_ns() - (time.monotonic_ns() - process.began_ns)


def seen_from_here(pid: int, path: bytes, workspace: bytes) -> bytes:
    """`path` as `pid` has it, as this process has it, if it is in `workspace`."""
    return moved_here(path, other_paths(pid, workspace), workspace)


def moved_here(path: bytes, places: Iterable[bytes], workspace: bytes) -> bytes:
    """The same, where `places` are what `other_paths` said of the process."""
    for place in places:
        if (path + b"/").startswith(place.rstrip(b"/") + b"/"):
            return workspace + path[len(place.rstrip(b"/")) :]
    return path


def _sees_otherwise(pid: int) -> bool:
    return os.stat(f"/proc/{pid}/ns/mnt").st_ino != os.stat("/proc/self/ns/mnt").st_ino


def _is(pid: int, path: bytes, directory: os.stat_result) -> bool:
    try:
        found = os.stat(b"/proc/%d/root%s" % (pid, path))
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (directory.st_dev, directory.st_ino)
