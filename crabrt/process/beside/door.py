"""How what a fork starts anew comes to where its processes are: their files, and their network."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import Final

from crabrt.process.beside import network, whose
from crabrt.process.family import Identity

_APART: Final = ("unshare", "--mount", "--propagation", "slave", "sh", "-c")
_SHOW: Final = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'


class Door:
    """To the namespaces of the processes that a run looks after.

    Args:
        workspace: where the run works; empty: nobody knows.

    Attributes:
        within: a command that runs another one there; empty while they are where we are.
    """

    def __init__(self, workspace: bytes) -> None:
        self._workspace = workspace
        self._descriptor: int | None = None
        self.within: tuple[str, ...] = ()

    def find(self, processes: Iterable[Identity]) -> None:
        """These came back: from now on it leads to them, if they are elsewhere."""
        for pid, _ in processes if self._workspace else ():
            places = whose.other_paths(pid, self._workspace)
            with contextlib.suppress(OSError):  # it ended: another one is asked
                if places:
                    self._open(pid, places)
                    return

    def _open(self, pid: int, places: Iterable[bytes]) -> None:
        within: tuple[str, ...] = ()
        descriptor = None
        if network.is_apart(pid):
            descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            within = ("nsenter", f"--net=/proc/{os.getpid()}/fd/{descriptor}", "--")
        self.close()
        self._descriptor = descriptor
        workspace = os.fsdecode(self._workspace)
        for place in places:
            within += (*_APART, _SHOW, "sh", workspace, os.fsdecode(place))
        self.within = within

    def close(self) -> None:
        """It leads nowhere any more."""
        descriptor, self._descriptor, self.within = self._descriptor, None, ()
        if descriptor is not None:
            os.close(descriptor)
