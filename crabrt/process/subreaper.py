"""Orphans of what a run starts come to the loop's process, and not to init: so nobody escapes.

A process that forks twice, or calls ``setsid``, loses its parent; the kernel hands it to the
nearest ancestor that is marked as a *child subreaper* (prctl(2)). While any run is live here, this
process is one. When the last run ends it is what it was before.

What an orphan leaves behind when it ends is this process's to collect. Only orphans are collected,
which are known by having had another parent: the loop's own children are the loop's to wait for.
Of one that lived between two looks nobody may know whose it was. A few of those may lie about; if
there are many, those go that no object of this program stands for.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import Final

from crabrt.core.forks import fork_safe
from crabrt.process import table

_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37

_UNCLAIMED_MOST: Final = 64
_HELPERS: Final = (
    ("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
    ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
)
"""Of multiprocessing, started without an object for each: module, its one object, the number."""

_lock = fork_safe(threading.Lock())
_users = 0
_was = False


def hold() -> bool:
    """Be one from now on; whether this process is. Each call wants one `release`."""
    global _users, _was  # noqa: PLW0603  the mark is the process's, so is the count
    with _lock:
        if _users == 0:
            _was = is_marked()
            if not _was and not _mark(1):
                return False
        _users += 1
        return True


def keep() -> bool:
    """Be one again if somebody took the mark; whether this process has been one all along."""
    with _lock:
        if is_marked():
            return True
        if _users > 0:
            _mark(1)
        return False


def release() -> None:
    """One user less; after the last one, be what it was before."""
    global _users  # noqa: PLW0603  see `hold`
    with _lock:
        _users -= 1
        if _users == 0 and not _was:
            _mark(0)


def collect(orphans: Iterable[table.Process]) -> None:
    """Let go of those that have ended. Nobody else waits for an orphan."""
    for orphan in orphans:
        with contextlib.suppress(ChildProcessError, OSError):
            os.waitpid(orphan.pid, os.WNOHANG)


def collect_unclaimed(ended: Sequence[table.Process]) -> None:
    """Of children that have ended, and may be orphans, keep no more than a few.

    Args:
        ended: since the look before this one at least: who waits for a child has done so by now.
    """
    if len(ended) > _UNCLAIMED_MOST:
        spoken_for = awaited()
        mine = sorted(
            (one for one in ended if one.pid not in spoken_for), key=lambda one: one.started
        )
        collect(mine[: max(0, len(mine) - _UNCLAIMED_MOST)])


def awaited() -> set[int]:
    """The numbers of processes that some object of this program stands for.

    Those are Python's own; what waits for a process in asyncio, anyio or trio has one inside.
    """
    forked = getattr(sys.modules.get("multiprocessing.popen_fork"), "Popen", subprocess.Popen)
    found = set()
    for one in gc.get_objects():
        # One that another thread is about to make may have no attributes yet.
        is_one = issubclass(type(one), (subprocess.Popen, forked))
        if is_one and getattr(one, "returncode", 0) is None:
            found.add(getattr(one, "pid", None))
    for module, name, number in _HELPERS:
        found.add(getattr(getattr(sys.modules.get(module), name, None), number, None))
    return {pid for pid in found if isinstance(pid, int)}


def is_marked() -> bool:
    """Whether orphans come to this process."""
    found = ctypes.c_int(0)
    done = _libc().prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(found), 0, 0, 0)
    return done == 0 and bool(found.value)


def _mark(value: int) -> bool:
    return bool(_libc().prctl(_PR_SET_CHILD_SUBREAPER, value, 0, 0, 0) == 0)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
