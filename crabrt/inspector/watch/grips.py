"""What each live process holds open for writing, or mapped so that it can write.

All processes are asked, not the run's alone: whoever writes, the state changes. To ask one takes
tens of microseconds, and most sleep: a process whose CPU time stands still has not run, so it holds
what it held. That clock lags for a process that is on a CPU at this moment; if any is, those are
found by their state and asked again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import threading
import time
from dataclasses import dataclass
from typing import Final

from crabrt.workspace.mappings import Mapping, maps_of, shared_in
from crabrt.workspace.procfs import read, status, threads

_SCHEDULED_CPU_TIME: Final = 2  # CPUCLOCK_SCHED of linux/posix-timers.h, for a whole process
_NEVER: Final = -1
_ENDED: Final = frozenset({b"Z", b"X"})  # states of a thread that has ended
_LOOP: Final = re.compile(rb" (loop[0-9]+)$", re.MULTILINE)


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
    """What was found when it was asked.

    Attributes:
        clock: of its CPU time, for ``clock_gettime``.
        cpu_ns: what that said just before.
        grips: what it held.
        seen: False: it could not be looked at.
        inert: it holds nothing and never will: a thread of the kernel's own, or one that has ended
            and that nobody has waited for, of which there may be many where nobody ever does.
    """

    clock: int
    cpu_ns: int
    grips: tuple[Grip, ...] = ()
    seen: bool = True
    inert: bool = False


class Grips:
    """The grips of all processes on the files of one device. Used by one thread at a time.

    Attributes:
        unseen: processes that could not be looked at the last time.
    """

    def __init__(self, device: int) -> None:
        self._device = device
        self._known: dict[bytes, _Process] = {}
        self.unseen = 0

    def look(self) -> list[Grip]:
        """All grips, as they are now. The loop is what a look costs: once a process."""
        others_run = _others_run()
        before, now = self._known, dict[bytes, _Process]()
        held: list[Grip] = []
        for name in os.listdir(b"/proc"):
            process = before.get(name)
            if process is None and not name.isdigit():
                continue
            if (
                process is None
                or _cpu_ns(process.clock) != process.cpu_ns
                or (others_run and _runs(name, process))
            ):
                process = self._ask(int(name))
            now[name] = process
            if process.grips:
                held += process.grips
        self._known = now
        self.unseen = sum(not process.seen for process in now.values())
        return held + self._backing()

    def _ask(self, pid: int) -> _Process:
        clock = ~pid << 3 | _SCHEDULED_CPU_TIME
        cpu_ns = _cpu_ns(clock)  # before it is looked at
        try:
            if pid == os.getpid():
                return _Process(clock, cpu_ns, self._of_this_process())
            found = status(pid)
            alive = _a_living_thread(pid) if found.state in _ENDED else pid
            if found.kernel or alive is None:
                return _Process(clock, cpu_ns, inert=True)
            with maps_of(alive) as maps:  # who may not look at them is refused at once
                # Opened before mapped: between the two, a file may be mapped and then closed.
                return _Process(clock, cpu_ns, (*self._opened(alive), *self._mapped(maps, alive)))
        except (FileNotFoundError, ProcessLookupError):
            return _Process(clock, _NEVER)  # it has ended, and closed what it held
        except OSError:
            return _Process(clock, _NEVER, seen=False)

    def _of_this_process(self) -> tuple[Grip, ...]:
        """Its own descriptors need no paths to be asked."""
        found: list[Grip] = []
        thread = threading.get_native_id()  # the first one may have ended
        for name in os.listdir(b"/proc/%d/fd" % thread):
            fd = int(name)
            with contextlib.suppress(OSError):  # closed by now, as the one it was listed by
                if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE:
                    found += self._grip(os.fstat(fd), b"/proc/%d/fd/%d" % (thread, fd))
        with maps_of(thread) as maps:
            return (*found, *self._mapped(maps, thread))

    def _opened(self, pid: int) -> list[Grip]:
        found: list[Grip] = []
        links = os.open(b"/proc/%d/fd" % pid, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in os.listdir(links):
                # The link's own mode tells how the file was opened: this needs no second file.
                with contextlib.suppress(FileNotFoundError):
                    if os.lstat(name, dir_fd=links).st_mode & stat.S_IWUSR:
                        there = os.stat(name, dir_fd=links)
                        found += self._grip(there, b"/proc/%d/fd/%s" % (pid, name.encode()))
        finally:
            os.close(links)
        return found

    def _mapped(self, maps: int, pid: int) -> list[Grip]:
        found: list[Grip] = []
        for mapping in shared_in(maps, pid):
            with contextlib.suppress(FileNotFoundError):
                found += self._grip(os.stat(mapping.link), mapping.link, mapping)
        return found

    def _grip(
        self, there: os.stat_result, link: bytes, mapping: Mapping | None = None
    ) -> list[Grip]:
        if not stat.S_ISREG(there.st_mode) or there.st_dev != self._device:
            return []
        return [Grip(there.st_dev, there.st_ino, link, mapping)]

    def _backing(self) -> list[Grip]:
        """Files behind loop devices: the kernel itself holds and writes them."""
        found: list[Grip] = []
        for name in _loop_devices():
            with contextlib.suppress(OSError):
                path = read(b"/sys/block/%s/loop/backing_file" % name)
                path = path.removesuffix(b"\n")
                found += self._grip(os.stat(path), path)
        return found


def _loop_devices() -> list[bytes]:
    """Those that may have a file behind them.

    The kernel's table of partitions leaves out what is empty: a device without a file, and one
    whose file is too short to be written through it.
    """
    with contextlib.suppress(OSError):
        if table := read(b"/proc/partitions"):
            return _LOOP.findall(table)
    with contextlib.suppress(OSError):
        return [name for name in os.listdir(b"/sys/block") if name.startswith(b"loop")]
    return []


def _cpu_ns(clock: int) -> int:
    """How long all threads of a process ran; a time that never was if it has ended."""
    try:
        return time.clock_gettime_ns(clock)
    except OSError:
        return time.monotonic_ns()


def _others_run() -> bool:
    """Whether anybody but the caller is on a CPU, or waits for one."""
    try:
        return int(read(b"/proc/loadavg").split()[3].partition(b"/")[0]) > 1
    except (OSError, IndexError, ValueError):
        return True


def _runs(name: bytes, process: _Process) -> bool:
    """Whether any of its threads is on a CPU, or waits for one; also if that is unknown."""
    if process.inert:
        return False
    try:
        pid = int(name)
        found = status(pid)
        if found.state == b"R" or found.threads == 1:
            return found.state == b"R"
        return any(status(thread).state == b"R" for thread in threads(pid))
    except OSError:
        return True


def _a_living_thread(pid: int) -> int | None:
    """One that still has what the process holds: the first may end before the others.

    None if all have ended, and only the process's number is left.
    """
    for thread in threads(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if status(thread).state not in _ENDED:
                return thread
    return None
