"""The lease: one process at a time may write a run's journal, and a killed one never blocks it.

It is an fcntl record lock on ``runs/<run>/lease``. The kernel drops it when its owner dies, in
whatever way, and does not pass it to forked children (flock and open-file-description locks are
passed on and outlive their owner in any child). Its price: a process loses the lock when it closes
*any* descriptor of the file. So this module alone opens it, once a process, behind one registry.

The file says who owns it: boot id, pid, start time of the pid, and the epoch, a number that grows
with every owner. Segments carry the epoch of their writer, so an owner that lost its lock without
noticing cannot harm the journal: see `segments`.

In a forked child every lease is inert: `Lease.inert` is true and the lock stays the parent's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import time
from pathlib import Path
from typing import Self

import msgspec
import xxhash

from crabrt.core.clock import boot_id
from crabrt.core.failpoints import declare
from crabrt.errors import RunBusy
from crabrt.journal.layout import DIRECTORY_MODE, FILE_MODE, list_segments, unavailable

_LOCKED = declare("lease.locked", "the lock is held; the file still names the owner before")
_WRITTEN = declare("lease.written", "the file names the new owner; no segment has its epoch yet")

_FLOCK = struct.Struct("hhqqi4x")
_SUM = struct.Struct("<Q")
_READ_BYTES = 4096
_ATTEMPTS = 100


class LeaseHolder(msgspec.Struct, frozen=True):
    """Who holds, or last held, a lease.

    Attributes:
        pid: the process; as the kernel names it here when it is alive.
        start_ticks: its start time, field 22 of ``/proc/<pid>/stat``; with `boot` it tells apart
            two processes that had the same pid.
        boot: boot id.
        epoch: the lease's epoch.
        since_ns: wall clock when it was acquired; 0 if unknown.
        ended: what its owner said when it let go of a run whose journal could not take it, else "".
    """

    pid: int
    start_ticks: int
    boot: str
    epoch: int
    since_ns: int
    ended: str = ""


class _Registry:
    """The leases this process holds, by the identity of the file; guards every open and close."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.held: dict[tuple[int, int], Lease] = {}
        self.hooked = False

    def hook_fork(self) -> None:
        if not self.hooked:
            os.register_at_fork(after_in_child=self._forked)
            self.hooked = True

    def _forked(self) -> None:
        """In the child: no lock came along, so closing the inherited descriptors drops nothing.

        They must be closed now: closed later, they would drop a lock the child took for itself.
        """
        self.lock = threading.RLock()
        held, self.held = self.held, {}
        for lease in held.values():
            lease._become_inert()  # noqa: SLF001 - the registry and the lease are one idea


_REGISTRY = _Registry()


class Lease:
    """The right to write one run's journal. Get one with `acquire`.

    Attributes:
        directory: the run's directory.
        epoch: greater than that of every owner before.
        holder: who that is, as others see it.
        key: device and inode of the lease file.
        inert: this is a forked child's copy, or it was released: nothing may be written under it.
    """

    def __init__(self, directory: Path, fd: int, key: tuple[int, int], holder: LeaseHolder) -> None:
        self.directory = directory
        self.epoch = holder.epoch
        self.holder = holder
        self.inert = False
        self._fd = fd
        self.key = key

    @classmethod
    def acquire(cls, directory: Path) -> Lease:
        """Take the lease of the run in `directory` (which is made if it is not there).

        Raises:
            RunBusy: a live process, maybe this one, holds it; the message names the pid.
            StoreUnavailable: the lease file cannot be written.
        """
        path = directory / "lease"
        with _REGISTRY.lock:
            _REGISTRY.hook_fork()
            try:
                os.makedirs(directory, DIRECTORY_MODE, exist_ok=True)
                for _ in range(_ATTEMPTS):
                    lease = _try_acquire(directory, path)
                    if lease is not None:
                        _REGISTRY.held[lease.key] = lease
                        return lease
            except OSError as error:
                raise unavailable(error, "take the lease", path) from error
        raise RunBusy("the run is being deleted", where=str(directory))

    def release(self, *, ended: str = "") -> None:
        """Let go. Safe to call twice, and in a forked child (where it does nothing).

        Args:
            ended: last words (``"done"``, ``"failed"``), for an owner whose journal could not take
                them: the few bytes of this file are there already, so a full disk takes them.
        """
        with _REGISTRY.lock:
            if not self.inert:
                if ended:
                    with contextlib.suppress(OSError):  # there is nowhere left to say it
                        _write_holder(self._fd, msgspec.structs.replace(self.holder, ended=ended))
                del _REGISTRY.held[self.key]
                self._become_inert()

    def _become_inert(self) -> None:
        self.inert = True
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def lease_holder(directory: Path) -> LeaseHolder | None:
    """Who writes this run's journal right now, or None. Takes no lock; any process may ask.

    Raises:
        StoreUnavailable: the lease file cannot be read.
    """
    path = directory / "lease"
    with _REGISTRY.lock:
        try:
            held = _held_here(path)
            if held is not None:
                return held.holder
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unavailable(error, "read the lease", path) from error
        try:
            return _locked_by(fd)
        except OSError as error:
            raise unavailable(error, "read the lease", path) from error
        finally:
            os.close(fd)


def last_words(directory: Path) -> str:
    """What the last owner of this run's lease said when it let go; "" if it said nothing, or lives.

    Raises:
        StoreUnavailable: the lease file cannot be read.
    """
    path = directory / "lease"
    with _REGISTRY.lock:
        try:
            if _held_here(path) is not None:
                return ""
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise unavailable(error, "read the lease", path) from error
        try:
            holder = _read_holder(fd)
        except OSError as error:
            raise unavailable(error, "read the lease", path) from error
        finally:
            os.close(fd)
    return holder.ended if holder is not None else ""


def start_ticks(pid: int) -> int:
    """Start time of a process in clock ticks since boot; 0 if it is gone or cannot be seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def _try_acquire(directory: Path, path: Path) -> Lease | None:
    """One attempt; None if the file was replaced under us."""
    held = _held_here(path)
    if held is not None:
        raise _busy(directory, held.holder)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _locked_by(fd)
        os.close(fd)
        if holder is None:
            return None
        raise _busy(directory, holder) from None
    except BaseException:
        os.close(fd)
        raise
    try:
        return _take_over(directory, path, fd)
    except BaseException:
        os.close(fd)
        raise


def _take_over(directory: Path, path: Path, fd: int) -> Lease | None:
    _LOCKED()
    status = os.fstat(fd)
    key = (status.st_dev, status.st_ino)
    if not _is_file(path, key):
        os.close(fd)
        return None
    before = _read_holder(fd)
    epochs = [name.epoch for name in list_segments(directory)]
    epoch = max([0 if before is None else before.epoch, *epochs]) + 1
    pid = os.getpid()
    holder = LeaseHolder(pid, start_ticks(pid), boot_id(), epoch, time.time_ns())
    _write_holder(fd, holder)
    _WRITTEN()
    return Lease(directory, fd, key, holder)


def _write_holder(fd: int, holder: LeaseHolder) -> None:
    data = msgspec.msgpack.encode(holder)
    os.pwrite(fd, _SUM.pack(xxhash.xxh3_64_intdigest(data)) + data, 0)
    os.ftruncate(fd, _SUM.size + len(data))


def _held_here(path: Path) -> Lease | None:
    """The lease of this process on the file at `path`. Never opens it."""
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(path)
        return _REGISTRY.held.get((status.st_dev, status.st_ino))
    return None


def _is_file(path: Path, key: tuple[int, int]) -> bool:
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(path)
        return (status.st_dev, status.st_ino) == key
    return False


def _locked_by(fd: int) -> LeaseHolder | None:
    """Who has the lock on `fd`'s file, asked without taking it."""
    query = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, query))
    if kind == fcntl.F_UNLCK:
        return None
    written = _read_holder(fd)
    if written is None:
        return LeaseHolder(pid, start_ticks(pid), boot_id(), 0, 0)
    # An owner in another PID namespace has no pid here: then the one it wrote is the best there is.
    return msgspec.structs.replace(written, pid=pid) if pid > 0 else written


def _read_holder(fd: int) -> LeaseHolder | None:
    """What the file says, or None if it is empty or its owner died while writing it."""
    data = os.pread(fd, _READ_BYTES, 0)
    if len(data) <= _SUM.size:
        return None
    body = data[_SUM.size :]
    if _SUM.unpack_from(data)[0] != xxhash.xxh3_64_intdigest(body):
        return None
    try:
        holder = msgspec.msgpack.decode(body, type=LeaseHolder)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
    return holder if holder.epoch >= 0 else None


def _busy(directory: Path, holder: LeaseHolder) -> RunBusy:
    since = ""
    if holder.since_ns > 0:
        since = time.strftime(" since %Y-%m-%d %H:%M:%S", time.localtime(holder.since_ns // 10**9))
    return RunBusy(
        f"the run is being written by process {holder.pid}{since}",
        where=directory.name,
        hint="wait for it to end, or stop it",
    )
