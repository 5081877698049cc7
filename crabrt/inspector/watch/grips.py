"""What each live process holds open for writing, or mapped so that it can write.

All processes are asked, not the run's alone: whoever writes, the state changes. To ask one takes
tens of microseconds, and most sleep: a process whose CPU time stands still has not run, so it holds
what it held. That clock lags for a process that is on a CPU at this moment; if any is, those are
found by their state and asked again.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from dataclasses import dataclass
from typing import Final

_SHARED_WRITABLE: Final = re.compile(
    rb"^([0-9a-f]+-[0-9a-f]+) .w.s [0-9a-f]+ \S+ [1-9][0-9]* ", re.MULTILINE
)
_SCHEDULED_CPU_TIME: Final = 2  # CPUCLOCK_SCHED of linux/posix-timers.h, for a whole process
_NEVER: Final = -1
_READ_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Grip:
    """A regular file that somebody can write into.

    Attributes:
        device, inode: of the file.
        mapped: by a shared mapping, not a descriptor.
        link: a path in ``/proc`` that opens this very file.
    """

    device: int
    inode: int
    mapped: bool
    link: bytes


@dataclass(frozen=True, slots=True)
class _Process:
    cpu_ns: int
    grips: tuple[Grip, ...]
    seen: bool


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
            if known is None or cpu_ns != known.cpu_ns or (others_run and _is_running(pid)):
                known = self._ask(pid, cpu_ns)
            now[pid] = known
        self._known = now
        self.unseen = sum(not process.seen for process in now.values())
        return [grip for process in now.values() for grip in process.grips] + self._backing()

    def _ask(self, pid: int, cpu_ns: int) -> _Process:
        try:
            return _Process(cpu_ns, (*self._opened(pid), *self._mapped(pid)), seen=True)
        except (FileNotFoundError, ProcessLookupError):
            return _Process(_NEVER, (), seen=True)  # it has ended, and closed what it held
        except OSError:
            return _Process(_NEVER, (), seen=False)

    def _opened(self, pid: int) -> list[Grip]:
        found: list[Grip] = []
        with os.scandir(b"/proc/%d/fd" % pid) as links:
            for link in links:
                # The link's own mode tells how the file was opened: this needs no second file.
                with contextlib.suppress(FileNotFoundError):
                    if link.stat(follow_symlinks=False).st_mode & stat.S_IWUSR:
                        found += self._grip(link.path, mapped=False)
        return found

    def _mapped(self, pid: int) -> list[Grip]:
        maps = _read(b"/proc/%d/maps" % pid)
        found: list[Grip] = []
        if b"w-s " not in maps and b"wxs " not in maps:
            return found
        for where in _SHARED_WRITABLE.findall(maps):
            with contextlib.suppress(FileNotFoundError):
                found += self._grip(b"/proc/%d/map_files/%s" % (pid, _trimmed(where)), mapped=True)
        return found

    def _grip(self, link: bytes, *, mapped: bool) -> list[Grip]:
        status = os.stat(link)
        if not stat.S_ISREG(status.st_mode) or status.st_dev != self._device:
            return []
        return [Grip(status.st_dev, status.st_ino, mapped, link)]

    def _backing(self) -> list[Grip]:
        """Files behind loop devices: the kernel itself holds and writes them."""
        found: list[Grip] = []
        with contextlib.suppress(OSError):
            for name in os.listdir(b"/sys/block"):
                if not name.startswith(b"loop"):
                    continue
                with contextlib.suppress(OSError):
                    path = _read(b"/sys/block/%s/loop/backing_file" % name)
                    found += self._grip(path.removesuffix(b"\n"), mapped=False)
        return found


def _read(path: bytes) -> bytes:
    """All of a file in ``/proc``: without the layers of a file object, in half the time."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, _READ_BYTES):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def _cpu_ns(pid: int) -> int:
    """How long all threads of the process ran; a time that never was if it has ended."""
    try:
        return time.clock_gettime_ns((~pid << 3) | _SCHEDULED_CPU_TIME)
    except OSError:
        return time.monotonic_ns()


def _others_run() -> bool:
    """Whether anybody but the caller is on a CPU, or waits for one."""
    try:
        return int(_read(b"/proc/loadavg").split()[3].partition(b"/")[0]) > 1
    except (OSError, IndexError, ValueError):
        return True


def _is_running(pid: int) -> bool:
    try:
        return b") R " in _read(b"/proc/%d/stat" % pid)
    except (OSError, IndexError):
        return True


def _trimmed(where: bytes) -> bytes:
    """A range as ``map_files`` names it: without leading zeros."""
    return b"-".join(b"%x" % int(part, 16) for part in where.split(b"-"))
