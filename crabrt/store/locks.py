"""Which writers live: files in ``writers/`` under an fcntl record lock.

The kernel drops the lock when its process dies, however it dies, and a forked child does not hold
it (a flock would stay with the child). fcntl locks have one trap: closing *any* descriptor of the
file drops the process's lock on it. So a process never opens a lock file that it holds itself:
`_HELD` knows them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from pathlib import Path

from crabrt.core.forks import fork_safe

_HELD: dict[tuple[int, int], HeldLock] = {}
_HELD_GUARD = fork_safe(threading.Lock())
_CONTENT_MAX = 64


class HeldLock:
    """A lock file that this process holds until `release`.

    What the file says can be read by others; its first byte is a state that may change.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._pid = os.getpid()
        status = os.fstat(fd)
        self._key = (status.st_dev, status.st_ino)

    @property
    def ours(self) -> bool:
        """Whether this is the process that took it, not a forked child."""
        return self._pid == os.getpid()

    def set_state(self, state: bytes) -> None:
        """Replace the first byte of what `content_of` shows to others."""
        os.pwrite(self._fd, state, 0)

    def content(self) -> bytes:
        """What the file says now."""
        return os.pread(self._fd, _CONTENT_MAX, 0)

    def release(self, *, remove: bool) -> None:
        """Give it up; with `remove`, its file goes first, so that nobody can take it for dead."""
        with _HELD_GUARD:
            if self._fd < 0:
                return
            if self.ours:
                if remove:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(self.path)
                _HELD.pop(self._key, None)
            os.close(self._fd)
            self._fd = -1


def create(path: Path, content: bytes) -> HeldLock:
    """Create a lock file, already locked when it gets its name.

    Raises:
        OSError: it cannot be created.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    held: HeldLock | None = None
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(fd, content, 0)
        with _HELD_GUARD:
            held = HeldLock(path, fd)
            _register(held)
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if held is None:
            os.close(fd)
        else:
            held.release(remove=False)
        raise
    return held


def try_lock(path: Path) -> HeldLock | None:
    """Take the lock on a file that is made if need be; None when somebody has it.

    Raises:
        OSError: the file cannot be opened.
    """
    with _HELD_GUARD:
        while True:
            if _held(path) is not None:
                return None
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return None
            except OSError:
                os.close(fd)
                raise
            held = HeldLock(path, fd)
            if _same_file(path, held):
                _register(held)
                return held
            os.close(fd)  # it was removed by the one who held it before: take the new one


def content_of(path: Path) -> bytes | None:
    """What the file of a lock says that somebody alive holds; None when nobody does.

    Raises:
        OSError: the file is there and cannot be opened.
    """
    with _HELD_GUARD:
        mine = _held(path)
        if mine is not None:
            return mine.content()
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            try:
                fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return os.pread(fd, _CONTENT_MAX, 0)
            return None
        finally:
            os.close(fd)


def _register(held: HeldLock) -> None:
    _HELD[held._key] = held  # noqa: SLF001 - the registry is the other half of the class


def _held(path: Path) -> HeldLock | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    held = _HELD.get((status.st_dev, status.st_ino))
    return held if held is not None and held.ours else None


def _same_file(path: Path, held: HeldLock) -> bool:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False
    return (status.st_dev, status.st_ino) == held._key  # noqa: SLF001 - as above
