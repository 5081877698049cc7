"""One restore of a workspace at a time: an fcntl record lock that dies with its process.

A record lock is not inherited by a forked child, so a killed owner cannot leave it stuck; but it
goes when *any* descriptor of the file is closed in its process, so the file is opened once and
threads of one process exclude each other by a set beside it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from crabrt.core.forks import fork_safe
from crabrt.errors import Busy, StoreUnavailable

_held: set[str] = set()
_held_guard = fork_safe(threading.Lock())


@contextlib.contextmanager
def restore_lock(state_dir: Path) -> Iterator[None]:
    """Hold the restore lock of the workspace whose state lies in `state_dir`.

    Raises:
        Busy: another restore of it runs; its process is named.
        StoreUnavailable: the lock file cannot be opened.
    """
    path = str(state_dir / "restore.lock")
    with _held_guard:
        if path in _held:
            raise _busy(path, os.getpid())
        _held.add(path)
    try:
        with _locked_file(path):
            yield
    finally:
        with _held_guard:
            _held.discard(path)


@contextlib.contextmanager
def _locked_file(path: str) -> Iterator[None]:
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StoreUnavailable(
            f"the lock of restores cannot be opened: {error.strerror}", where=path
        ) from error
    try:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            text = os.pread(fd, 32, 0).strip()
            raise _busy(path, int(text) if text.isdigit() else None) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(fd)


def _busy(path: str, pid: int | None) -> Busy:
    who = "another process" if pid is None else f"process {pid}"
    return Busy(f"{who} is restoring this workspace", where=path, hint="wait until it is done")
