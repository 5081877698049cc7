"""Channels of shells that are no more: what a killed loop leaves in the runtime directory.

Who runs in a shell carries its mark, which is the name of the directory of its channels; that of a
fork's shell is named after the original's, whose mark is in the image, and the fork. An image that
comes back has its channels made anew, so a directory that nobody's mark names can go. One with a
command whose end nobody has seen stays for a while: it says so to who takes that shell up.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import Final

from crabrt.core.config import SHELL_VARIABLE
from crabrt.process.shell import channels
from crabrt.process.shell.values import ShellRecord
from crabrt.process.table import look
from crabrt.workspace import procfs
from crabrt.workspace.procfs import read

_YOUNG_S: Final = 60.0
"""A shell that is being started, or restored, has channels before it has processes."""
_PENDING_S: Final = 14 * 86_400.0


def sweep(base: bytes) -> int:
    """Remove the channels below `base` that nobody can need; how many directories that were.

    Not to be called by a process that is attached to a shell.
    """
    removed = 0
    marks, seen = _marks(), _seen()
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(base), reverse=True):  # a fork's before the original's
            directory = os.path.join(base, name)
            made = channels.BESIDE.fullmatch(name)
            is_free = made and marks.isdisjoint({name, made[1]}) and name not in seen
            if is_free and _is_old(directory):
                with contextlib.suppress(OSError):  # something else is in there
                    channels.remove(directory, wholly=True)
                    removed += 1
    return removed


def discard(record: ShellRecord) -> None:
    """Remove the channels of a shell that was given up, if its first process is gone.

    A record without a first process is that of another run's shell, which may be in use.
    """
    if not record.init_pid:
        return
    with contextlib.suppress(OSError):
        init = look(record.init_pid)
        if init is None or init.ended or init.started != record.init_started:
            channels.remove(record.directory)


def _is_old(directory: bytes) -> bool:
    found = os.lstat(directory)
    is_mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    pending = is_mine and channels.pending(directory) is not None
    return is_mine and time.time() - found.st_mtime > (_PENDING_S if pending else _YOUNG_S)


def _marks() -> set[bytes]:
    """Of all shells that any process was started in."""
    name, found = f"{SHELL_VARIABLE}=".encode(), set[bytes]()
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it ended, or is another user's
            for variable in read(b"/proc/%d/environ" % int(pid)).split(b"\0"):
                if variable.startswith(name):
                    found.update(variable[len(name) :].split(b"/"))
    return found


def _seen() -> set[bytes]:
    """The names of directories that any process sees mounted somewhere."""
    found = set[bytes]()
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it ended
            found.update(os.path.basename(one.root) for one in procfs.mounts(int(pid)))
    return found
