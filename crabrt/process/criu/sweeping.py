"""What a restore that failed has left is ended, and nobody else.

Numbers alone do not tell: while CRIU ran, one of the image may have become any program's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from crabrt.process import table
from crabrt.process.criu import wire
from crabrt.process.signalling import send
from crabrt.process.table import Process
from crabrt.workspace.procfs import read

_LIMIT_S: Final = 5.0
_POLL_S: Final = 0.002


@dataclass(frozen=True)
class Attempt:
    """A call of CRIU that is to restore a tree.

    Attributes:
        tasks: what the images are of.
        criu: the number of CRIU's process, which leads a session.
        since: in clock ticks, when it was started: only what began later is its work.
        own: the numbers are of a PID namespace of its own.
        room: the first process of the namespace that the tree was to come back in, or None.
        beside: who was in there already.
    """

    tasks: Sequence[wire.Task]
    criu: int
    since: int
    own: bool
    room: int | None
    beside: Sequence[Process] = ()

    def sweep(self, spared: int | None = None) -> None:
        """End what is left of it, and collect it, so that the numbers are free again.

        Args:
            spared: the number of a process that is somebody else's.
        """
        until = time.monotonic() + _LIMIT_S
        while True:
            left = self._left(spared)
            for process in left:
                send(process.identity, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
            if not left or time.monotonic() > until:
                return
            time.sleep(_POLL_S)

    def _left(self, spared: int | None) -> list[Process]:
        found: dict[int, Process] = {}
        with contextlib.suppress(OSError):
            if self.room is not None:
                return self._left_in(self.room)
            numbers = {task.pid for task in self.tasks} - {spared}
            for number in table.children(os.getpid()) if self.own else numbers:
                process = table.look(number)
                if process is None or process.started < self.since or not self._made(process):
                    continue
                for one in (*table.descendants(number), process):
                    found[one.pid] = one
        # What has ended and is not ours is its parent's to collect.
        me = os.getpid()
        return [one for one in found.values() if not one.ended or one.parent == me]

    def _left_in(self, room: int) -> list[Process]:
        """All that is new in there, which CRIU itself may be; but for what the others started."""
        before = {one.identity for one in self.beside}
        sessions = {one.session for one in self.beside}
        others: set[int] = set()
        found = []
        for one in table.descendants(room):  # parents before children
            if one.identity in before or one.parent in others or one.session in sessions:
                others.add(one.pid)
            else:
                found.append(one)
        return found

    def _made(self, process: Process) -> bool:
        """Whether CRIU made it: by its session and its parent, who is ours, CRIU's, or its heir."""
        if self.own:
            return _inner_number(process.pid) == self.tasks[0].pid
        sessions = {self.criu, *(task.session for task in self.tasks)}
        parents = {self.criu, *(task.pid for task in self.tasks), *_lineage()}
        return process.session in sessions and process.parent in parents


def _lineage() -> set[int]:
    """This process and all above it: one of them is given whoever loses its parent."""
    found: set[int] = set()
    above = table.look(os.getpid())
    while above is not None and above.pid not in found:
        found.add(above.pid)
        above = table.look(above.parent) if above.parent > 0 else None
    return found


def _inner_number(pid: int) -> int | None:
    """What a process is called in a PID namespace below ours; None if it is in ours."""
    with contextlib.suppress(OSError):
        for line in read(b"/proc/%d/status" % pid).splitlines():
            if line.startswith(b"NSpid:"):
                numbers = line.split()[1:]
                return int(numbers[-1]) if len(numbers) > 1 else None
    return None
