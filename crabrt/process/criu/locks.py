"""POSIX locks of a tree: whose they are is corrected in its image, and they are put back.

CRIU notes each lock that ``fdinfo`` shows for a descriptor, and sets it again when the descriptors
are there. Three things go wrong with it (docs/internals/images.md):

* It maps files after that, through descriptors of its own, and closes them. Whoever closes any
  descriptor of a file gives up all its locks on it (fcntl(2)): what is locked and mapped is free
  then. SQLite's WAL mode lives by such locks.
* A child that was given a descriptor shows its parent's lock, and a parent its child's. The first
  of the two is noted as the owner.
* It waits for a lock that somebody else has, for as long as that lasts.

So an image has the locks as the kernel tells whose they are, they are set by the processes
themselves after CRIU is done and before they run, and one that cannot be had is an error.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from crabrt.process import tracing
from crabrt.process.criu import wire
from crabrt.process.tracing import Inside, Traced
from crabrt.workspace.procfs import read

FILE: Final = "filelocks.img"
_FLAG, _TYPE, _PID, _FD, _START, _LENGTH = 1, 2, 3, 4, 5, 6  # file_lock_entry of file-lock.proto
_POSIX: Final = 1  # FL_POSIX of CRIU's file-lock.h
_KINDS: Final[Mapping[bytes, int]] = {b"READ": fcntl.F_RDLCK, b"WRITE": fcntl.F_WRLCK}
_MODES: Final[Mapping[int, frozenset[int]]] = {
    fcntl.F_RDLCK: frozenset({os.O_RDONLY, os.O_RDWR}),
    fcntl.F_WRLCK: frozenset({os.O_WRONLY, os.O_RDWR}),
}
_FCNTL: Final = 72  # x86-64
_STRUCT: Final = struct.Struct("hhxxxxqqixxxx")  # struct flock


class Lock(NamedTuple):
    """A POSIX lock.

    Attributes:
        pid: of its owner, in the numbers of the owner's PID namespace.
        fd: a descriptor of the owner's by which it can be had.
        kind: F_RDLCK or F_WRLCK.
        start, length: in bytes; length 0: to the end of the file, wherever that comes to be.
    """

    pid: int
    fd: int
    kind: int
    start: int
    length: int


def held(numbers: Mapping[int, int]) -> list[Lock]:
    """The POSIX locks of processes that stand still.

    Args:
        numbers: of the processes, by those that they have in their own PID namespace.

    Raises:
        OSError: a process ended, or may not be looked at.
    """
    return [lock for inner, pid in numbers.items() for lock in _held(inner, pid)]


def _held(inner: int, pid: int) -> Iterator[Lock]:
    found: dict[tuple[bytes, ...], tuple[bool, Lock]] = {}
    for name in sorted(os.listdir(b"/proc/%d/fdinfo" % pid), key=int):
        try:
            lines = read(b"/proc/%d/fdinfo/%s" % (pid, name)).splitlines()
        except FileNotFoundError:  # one of those that looking opens
            continue
        mode = next((int(x[6:], 8) for x in lines if x.startswith(b"flags:")), 0) & os.O_ACCMODE
        for words in map(bytes.split, lines):
            if words[:1] != [b"lock:"] or len(words) < 9 or words[2] != b"POSIX":
                continue
            kind, owner, start, end = words[4], words[5], words[7], words[8]
            if int(owner) != pid or kind not in _KINDS:
                continue
            length = 0 if end == b"EOF" else int(end) + 1 - int(start)
            lock = Lock(inner, int(name), _KINDS[kind], int(start), length)
            fits, key = mode in _MODES[lock.kind], (words[6], kind, start, end)
            if key not in found or (fits and not found[key][0]):
                found[key] = fits, lock
    return (lock for _, lock in found.values())


def lost_here(locks: Iterable[Lock], numbers: Mapping[int, int]) -> str:
    """What CRIU would lose and nobody puts back, where processes cannot be made to do it; or empty.

    Args:
        locks: as they are `held`.
        numbers: of the processes, as for `held`.

    Raises:
        OSError: a process ended, or may not be looked at.
    """
    if tracing.SUPPORTED:
        return ""
    for lock in locks:
        pid = numbers[lock.pid]
        path = os.readlink(b"/proc/%d/fd/%d" % (pid, lock.fd))
        maps = read(b"/proc/%d/maps" % pid).splitlines()
        if any(line.split(None, 5)[5:] == [path] for line in maps):
            on = f"{_shown(pid, lock)}, which it has mapped"
            return (
                f"{on}, would be lost: it is put back on x86-64, and this is {os.uname().machine}"
            )
    return ""


def recorded(images: Path) -> list[Lock]:
    """The POSIX locks that an image has.

    Raises:
        OSError: it cannot be read.
        NotUnderstood: it is none.
    """
    return [_lock(one) for one in _entries(images) if _is_posix(one)]


def record(images: Path, locks: Sequence[Lock]) -> None:
    """Have an image hold exactly these POSIX locks. What else it has of locks stays.

    Raises:
        OSError, NotUnderstood: as `recorded`.
    """
    if locks != recorded(images):
        (images / FILE).write_bytes(image_with(images, locks))


def image_with(images: Path, locks: Sequence[Lock]) -> bytes:
    """The list of locks of an image, with these for its POSIX locks.

    Raises:
        OSError, NotUnderstood: as `recorded`.
    """
    others = [one for one in _entries(images) if not _is_posix(one)]
    return wire.image(others + [_message(lock) for lock in locks], wire.FILE_LOCKS_MAGIC)


def put_back(locks: Iterable[Lock], numbers: Mapping[int, int]) -> str:
    """Have stopped processes take their locks; what went wrong, empty if nothing did.

    Args:
        locks: as they are `recorded`.
        numbers: of the processes, as for `held`.

    Raises:
        OSError: a process ended, or may not be traced.
    """
    missing = _missing(locks, numbers)
    for inner in dict.fromkeys(lock.pid for lock in missing):
        theirs = [lock for lock in missing if lock.pid == inner]
        pid = numbers.get(inner)
        if pid is None:
            return f"process {inner}, which held a lock, is not there"
        if not tracing.SUPPORTED:
            return f"{_shown(pid, theirs[0])} cannot be had again on this kind of machine"
        with Traced(pid) as process:
            for lock in theirs:
                problem = _taken(process, pid, lock)
                if problem:
                    return problem
    left = _missing(missing, numbers)
    return f"{_shown(numbers[left[0].pid], left[0])} did not last" if left else ""


def _missing(locks: Iterable[Lock], numbers: Mapping[int, int]) -> list[Lock]:
    there = {lock._replace(fd=-1) for lock in held(numbers)}
    return [lock for lock in locks if lock._replace(fd=-1) not in there]


def _taken(process: Traced, pid: int, lock: Lock) -> str:
    """Have a process take a lock; what went wrong, empty if nothing did."""
    wanted = _STRUCT.pack(lock.kind, os.SEEK_SET, lock.start, lock.length, 0)
    result = process.call(_FCNTL, lock.fd, fcntl.F_SETLK, Inside(0), memory=wanted)
    if result in {-errno.EAGAIN, -errno.EACCES}:
        return f"{_shown(pid, lock)} is another program's now"
    return f"{_shown(pid, lock)} cannot be had again: {os.strerror(-result)}" if result else ""


def _shown(pid: int, lock: Lock) -> str:
    try:
        path = os.fsdecode(os.readlink(f"/proc/{pid}/fd/{lock.fd}"))
    except OSError:
        path = f"descriptor {lock.fd}"
    kind = "read" if lock.kind == fcntl.F_RDLCK else "write"
    return f"a {kind} lock of process {pid} on {path}"


def _entries(images: Path) -> list[bytes]:
    try:
        data = (images / FILE).read_bytes()
    except FileNotFoundError:  # an image without any
        return []
    return wire.entries(data, wire.FILE_LOCKS_MAGIC) if data else []


def _is_posix(message: bytes) -> bool:
    return bool(wire.numbers(message).get(_FLAG, 0) & _POSIX)


def _lock(message: bytes) -> Lock:
    found = wire.numbers(message)
    fields = (_PID, _FD, _TYPE, _START, _LENGTH)
    return Lock(*(found.get(number, 0) for number in fields))


def _message(lock: Lock) -> bytes:
    values = {
        _FLAG: _POSIX,
        _TYPE: lock.kind,
        _PID: lock.pid,
        _FD: lock.fd,
        _START: lock.start,
        _LENGTH: lock.length,
    }
    return b"".join(wire.varint_field(number, value) for number, value in values.items())
