"""Who works in which directory: one live run family for each workspace, whatever its path overlaps.

A claim is a file in ``workspaces/claims`` whose owner holds an fcntl record lock on it. The kernel
drops the lock when the owner dies, however it dies, so nothing has to be cleaned up before the next
one; and a forked child does not inherit it (as it would a flock), so a child that outlives its
parent does not keep the directory taken. A record lock is lost when its process closes *any*
descriptor of the file: a process therefore never opens its own claims again, it remembers them.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from crabrt.errors import StoreUnavailable, WorkspaceBusy

_FLOCK = struct.Struct("hhqqi4x")  # type, whence, start, length, pid: struct flock on 64-bit Linux


class _Record(msgspec.Struct, frozen=True):
    """What a claim file says."""

    path: bytes
    family: str
    pid: int
    shared: bool


@dataclass(eq=False)
class Claim:
    """One run's hold on a directory. `release` gives it back; so does the death of the process."""

    path: bytes
    family: str
    shared: bool
    _file: Path
    _fd: int = field(repr=False)
    _owner_pid: int = field(default_factory=os.getpid, repr=False)

    def release(self) -> None:
        """Give the directory back. Harmless when done twice, and in a forked child."""
        with _mutex:
            if self not in _own:
                return
            _own.remove(self)
            if self._owner_pid == os.getpid():
                self._file.unlink(missing_ok=True)
            os.close(self._fd)


_mutex = threading.Lock()
_own: list[Claim] = []


def _forget_in_child() -> None:
    """The claims are the parent's; a child starts with none."""
    global _mutex  # noqa: PLW0603 - the lock may have been held by a thread that is not here
    _mutex = threading.Lock()
    for held in _own:
        os.close(held._fd)  # noqa: SLF001 - the class above
    _own.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def claim(directory: Path, path: bytes, family: str, *, shared: bool) -> Claim:
    """Claim `path` for `family`; `directory` holds the claim files of all workspaces of a store.

    Raises:
        WorkspaceBusy: see `Workspace.claim`.
        StoreUnavailable: the claim cannot be written.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _mutex, _registry_locked(directory):
            for other in _others(directory):
                _check(other, path, family, shared=shared)
            record = _Record(path, family, os.getpid(), shared)
            file = directory / f"{os.urandom(8).hex()}.claim"
            fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(fd, msgspec.msgpack.encode(record))
            held = Claim(path, family, shared, file, fd)
            _own.append(held)
            return held
    except OSError as error:
        raise StoreUnavailable(
            f"cannot claim the workspace: {error.strerror}", where=str(directory)
        ) from error


def is_claimed(directory: Path, path: bytes) -> bool:
    """Whether somebody alive has claimed just `path`. It only looks.

    Raises:
        StoreUnavailable: the claims cannot be read.
    """
    try:
        with _mutex:
            own = {held._file.name for held in _own}  # noqa: SLF001 - the class above
            if any(held.path == path for held in _own):
                return True
            names = [name for name in os.listdir(directory) if name.endswith(".claim")]
            return any(_holds(directory / name, path) for name in names if name not in own)
    except FileNotFoundError:
        return False  # there never was a claim
    except OSError as error:
        raise StoreUnavailable(
            f"the claims cannot be read: {error.strerror}", where=str(directory)
        ) from error


def _holds(file: Path, path: bytes) -> bool:
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False  # just given back
    try:
        record = msgspec.msgpack.decode(os.read(fd, 1 << 20), type=_Record)
        return record.path == path and not _is_free(fd)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return False  # of nobody, or of somebody who is only just claiming
    finally:
        os.close(fd)


def _is_free(fd: int) -> bool:
    answer = fcntl.fcntl(fd, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, 0, 0, 0))
    return bool(_FLOCK.unpack(answer)[0] == fcntl.F_UNLCK)


def _check(other: _Record, path: bytes, family: str, *, shared: bool) -> None:
    if shared or other.family == family or not _overlap(path, other.path):
        return
    raise WorkspaceBusy(
        f"run {other.family} (pid {other.pid}) works in {os.fsdecode(other.path)}",
        where=os.fsdecode(path),
        hint="wait for it to end, or stop it",
    )


def _overlap(one: bytes, two: bytes) -> bool:
    one, two = one.rstrip(b"/") + b"/", two.rstrip(b"/") + b"/"
    return one.startswith(two) or two.startswith(one)


@contextmanager
def _registry_locked(directory: Path) -> Iterator[None]:
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _others(directory: Path) -> Iterator[_Record]:
    """The live claims; files of dead owners are removed on the way."""
    own = {held._file.name for held in _own}  # noqa: SLF001 - the class above
    for held in _own:
        yield _Record(held.path, held.family, os.getpid(), held.shared)
    for name in sorted(os.listdir(directory)):
        if not name.endswith(".claim") or name in own:
            continue
        record = _live_record(directory / name)
        if record is not None:
            yield record


def _live_record(file: Path) -> _Record | None:
    try:
        fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if _is_free(fd):
            file.unlink(missing_ok=True)
            return None
        return msgspec.msgpack.decode(os.read(fd, 1 << 20), type=_Record)
    except (msgspec.DecodeError, msgspec.ValidationError):
        # Locked, so somebody alive works somewhere: unknown means everywhere.
        return _Record(b"/", f"unknown (see {file})", 0, shared=False)
    finally:
        os.close(fd)
