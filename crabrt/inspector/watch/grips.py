"""What each live process holds open for writing, or mapped so that it can write.

All processes are asked, not the run's alone: whoever writes, the state changes. To ask one takes
tens of microseconds, and most sleep: a process whose CPU time stands still has not run, so it holds
what it held. That clock lags for a process that is on a CPU at this moment; if any is, those are
found by their state and asked again.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from dataclasses import dataclass
from typing import Final

from crabrt.workspace.mappings import Mapping, shared_mappings
from crabrt.workspace.procfs import read, status, threads

_SCHEDULED_CPU_TIME: Final = 2  # CPUCLOCK_SCHED of linux/posix-timers.h, for a whole process
_NEVER: Final = -1
_ENDED: Final = frozenset({b"Z", b"X"})  # states of a thread that has ended


@dataclass(frozen=True, slots=True)
class Grip:
    """A regular file that somebody can write into.

    Attributes:
        device, inode: of the file.
        link: a path in ``/proc`` that opens this very file.
        mapping: by which it is held, if not by a descriptor. One that is not writable now holds it
            only if it ever was.
    """

    device: int
    inode: int
    link: bytes
    mapping: Mapping | None = None


@dataclass(frozen=True, slots=True)
class _Process:
    cpu_ns: int
    grips: tuple[Grip, ...] = ()
    seen: bool = True
    kernel: bool = False


class Grips:
    """The grips of all processes on the files of one device. Used by one thread at a time.

    Attributes:
        unseen: processes that could not be looked at the last time.
    """

    def __init__(self, device: int) -> None:
        self._device = device
        self._known: dict[int, _Process] = {}
        self.unseen = 0

    def look(self) -> list[Grip]:
        """All grips, as they are now."""
        others_run = _others_run()
        now: dict[int, _Process] = {}
        for name in os.listdir(b"/proc"):
            if not name.isdigit():
                continue
            pid = int(name)
            known, cpu_ns = self._known.get(pid), _cpu_ns(pid)
            if (
                known is None
                or cpu_ns != known.cpu_ns
                or (others_run and not known.kernel and _runs(pid))
            ):
                known = self._ask(pid, cpu_ns)
            now[pid] = known
        self._known = now
        self.unseen = sum(not process.seen for process in now.values())
        return [grip for process in now.values() for grip in process.grips] + self._backing()

    def _ask(self, pid: int, cpu_ns: int) -> _Process:
        try:
            found = status(pid)
            if found.kernel:
                return _Process(cpu_ns, kernel=True)
            alive = _a_living_thread(pid) if found.state in _ENDED else pid
            return _Process(cpu_ns, (*self._opened(alive), *self._mapped(alive)))
        except (FileNotFoundError, ProcessLookupError):
            return _Process(_NEVER)  # it has ended, and closed what it held
        except OSError:
            return _Process(_NEVER, seen=False)

    def _opened(self, pid: int) -> list[Grip]:
        found: list[Grip] = []
        with os.scandir(b"/proc/%d/fd" % pid) as links:
            for link in links:
                # The link's own mode tells how the file was opened: this needs no second file.
                with contextlib.suppress(FileNotFoundError):
                    if link.stat(follow_symlinks=False).st_mode & stat.S_IWUSR:
                        found += self._grip(link.path)
        return found

    def _mapped(self, pid: int) -> list[Grip]:
        found: list[Grip] = []
        for mapping in shared_mappings(pid):
            with contextlib.suppress(FileNotFoundError):
                found += self._grip(mapping.link, mapping)
        return found

    def _grip(self, link: bytes, mapping: Mapping | None = None) -> list[Grip]:
        there = os.stat(link)
        if not stat.S_ISREG(there.st_mode) or there.st_dev != self._device:
            return []
        return [Grip(there.st_dev, there.st_ino, link, mapping)]

    def _backing(self) -> list[Grip]:
        """Files behind loop devices: the kernel itself holds and writes them."""
        found: list[Grip] = []
        with contextlib.suppress(OSError):
            for name in os.listdir(b"/sys/block"):
                if not name.startswith(b"loop"):
                    continue
                with contextlib.suppress(OSError):
                    path = read(b"/sys/block/%s/loop/backing_file" % name)
                    found += self._grip(path.removesuffix(b"\n"))
        return found


def _cpu_ns(pid: int) -> int:
    """How long all threads of the process ran; a time that never was if it has ended."""
    try:
        return time.clock_gettime_ns((~pid << 3) | _SCHEDULED_CPU_TIME)
    except OSError:
        return time.monotonic_ns()


def _others_run() -> bool:
    """Whether anybody but the caller is on a CPU, or waits for one."""
    try:
        return int(read(b"/proc/loadavg").split()[3].partition(b"/")[0]) > 1
    except (OSError, IndexError, ValueError):
        return True


def _runs(pid: int) -> bool:
    """Whether any thread of the process is on a CPU, or waits for one; also if that is unknown."""
    try:
        found = status(pid)
        if found.state == b"R" or found.threads == 1:
            return found.state == b"R"
        return any(status(thread).state == b"R" for thread in threads(pid))
    except OSError:
        return True


def _a_living_thread(pid: int) -> int:
    """One that still has what the process holds: the first may end before the others.

    Raises:
        ProcessLookupError: all have ended.
    """
    for thread in threads(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if status(thread).state not in _ENDED:
                return thread
    raise ProcessLookupError(pid)
