"""Whether the workspace is still the directory that is watched, seen with this process's eyes.

Neither mounting nor what happens above a workspace is an event in it. Both are asked for at each
drain: one stat, and one poll of the mount table, which the kernel flags when it changed.
"""

from __future__ import annotations

import os
import select

from crabrt.workspace.procfs import Mount, mounts


class Ground:
    """A workspace's place. Used by one thread at a time.

    Args:
        path: absolute.
        fd: the directory, open; stays the caller's.

    Raises:
        OSError: ``/proc`` is not there.
    """

    def __init__(self, path: bytes, fd: int) -> None:
        self._path = path
        status = os.fstat(fd)
        self._identity = (status.st_dev, status.st_ino)
        self._table = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._table, select.POLLPRI)
        self._poll.poll(0)
        self._mounted = self._inside()

    def moved(self) -> str | None:
        """Why what was watched is not what lies at the path now; None if it is.

        What is found is told once; later calls compare with what is there now.
        """
        try:
            status = os.stat(self._path)
        except OSError as error:
            return f"the workspace cannot be found: {error.strerror}"
        if (status.st_dev, status.st_ino) != self._identity:
            return "another directory lies at the workspace's path"
        if self._poll.poll(0):
            before, self._mounted = self._mounted, self._inside()
            if before != self._mounted:
                return "something was mounted or unmounted in the workspace"
        return None

    def close(self) -> None:
        """Look no more."""
        os.close(self._table)

    def _inside(self) -> frozenset[Mount]:
        below = self._path.rstrip(b"/") + b"/"
        return frozenset(mount for mount in mounts() if mount.point.startswith(below))
