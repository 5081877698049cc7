"""What ``/proc`` says of a process, read with as few calls as that takes."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

_READ_BYTES: Final = 1 << 16
_KERNEL_THREAD: Final = 0x0020_0000  # PF_KTHREAD of linux/sched.h
_OPTIONAL_FIELDS: Final = 6  # of mountinfo begin here; a dash ends them
_STATE, _FLAGS, _THREADS = 0, 6, 17  # fields of /proc/PID/stat, counted after the name


class Status(NamedTuple):
    """Of one thread, and how many its process has.

    Attributes:
        state: the kernel's letter: ``R`` runs or could, ``Z`` has ended.
        kernel: it is a thread of the kernel's own.
        threads: of its process.
    """

    state: bytes
    kernel: bool
    threads: int


class Mount(NamedTuple):
    """One mount of a namespace, as a line of ``mountinfo`` says it (proc_pid_mountinfo(5)).

    Attributes:
        id, parent: the mount's number, and that of what it is mounted on.
        device: ``major:minor`` of the file system.
        root: which directory of the file system it shows.
        point: where.
        kind: of file system: ``ext4``, ``fuse.sshfs``.
    """

    id: int
    parent: int
    device: bytes
    root: bytes
    point: bytes
    kind: bytes


def read(path: bytes) -> bytes:
    """All of a file in ``/proc``: without the layers of a file object, in half the time.

    Raises:
        OSError: as the file says.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, _READ_BYTES):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def status(pid: int) -> Status:
    """Of a process's first thread, or of the thread `pid`.

    Raises:
        OSError: it is no more, or the kernel's line is not understood.
    """
    line = read(b"/proc/%d/stat" % pid)
    try:
        fields = line.rpartition(b") ")[2].split()
        kernel = bool(int(fields[_FLAGS]) & _KERNEL_THREAD)
        return Status(fields[_STATE], kernel, int(fields[_THREADS]))
    except (IndexError, ValueError) as error:
        raise OSError(f"/proc/{pid}/stat is not understood") from error


def threads(pid: int) -> list[int]:
    """The threads of a process.

    Raises:
        OSError: it is no more.
    """
    return [int(name) for name in os.listdir(b"/proc/%d/task" % pid)]


def mounts(pid: int | None = None) -> tuple[Mount, ...]:
    """All mounts that a process sees.

    Args:
        pid: which; None: this one.

    Raises:
        OSError: it is no more, ``/proc`` is not there, or a line of it is not understood.
    """
    path = b"/proc/self/mountinfo" if pid is None else b"/proc/%d/mountinfo" % pid
    try:
        return tuple(_mount(line) for line in read(path).splitlines())
    except (IndexError, ValueError) as error:
        raise OSError(f"{os.fsdecode(path)} is not understood") from error


def _mount(line: bytes) -> Mount:
    words = line.split(b" ")
    kind = words[words.index(b"-", _OPTIONAL_FIELDS) + 1]
    own, parent = int(words[0]), int(words[1])
    return Mount(own, parent, words[2], unescaped(words[3]), unescaped(words[4]), kind)


def unescaped(text: bytes) -> bytes:
    """A path of a table in ``/proc``: space, tab, newline and backslash are octal in there."""
    if b"\\" not in text:
        return text
    head, *rest = text.split(b"\\")
    return head + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in rest)
