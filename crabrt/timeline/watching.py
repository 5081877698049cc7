"""Waiting until files may have changed: told by inotify, or else looking again and again.

A watch is a hint and never the truth: who waited looks, and who was told nothing looks, too, at
`SLOW_S`. inotify tells nothing of what other machines write to a network file system, and a user's
watches may be used up; where it cannot be had every directory is looked at each `POLL_S`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import select
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

POLL_S = 0.1
"""How often files are looked at where nothing tells of changes."""

SLOW_S = 1.0
"""How often they are looked at where something does: not everything is told."""

# linux/inotify.h
_MODIFY, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO = 0x2, 0x8, 0x40, 0x80
_CREATE, _DELETE, _DELETE_SELF, _MOVE_SELF = 0x100, 0x200, 0x400, 0x800
_ONLYDIR = 0x0100_0000
_EVENTS = (
    _MODIFY | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF
)
_READ_BYTES = 1 << 16
_DRAINS_MOST = 64


class Watch:
    """Waits for changes in directories. `wait` belongs to one thread; `wake` to any.

    Attributes:
        is_told: whether the kernel tells of changes; else `wait` ends every `POLL_S`.
    """

    def __init__(self, *, inotify: bool = True) -> None:
        self._lock = threading.Lock()
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._fd = _new_inotify() if inotify else None
        self._watched: dict[bytes, int] = {}
        self._poll = select.poll()
        self._poll.register(self._wakeup, select.POLLIN)
        if self._fd is not None:
            self._poll.register(self._fd, select.POLLIN)

    @property
    def is_told(self) -> bool:
        """See the class."""
        return self._fd is not None

    def watch(self, directories: Iterable[Path]) -> None:
        """Watch exactly these directories; one that is not there is tried again at the next call.

        A directory that was deleted and made again is watched again.
        """
        if self._fd is None:
            return
        wanted = {os.fsencode(directory) for directory in directories}
        for path in self._watched.keys() - wanted:
            _libc().inotify_rm_watch(self._fd, self._watched[path])
        kept: dict[bytes, int] = {}
        for path in wanted:
            number = _libc().inotify_add_watch(self._fd, path, _EVENTS | _ONLYDIR)
            if number >= 0:
                kept[path] = number
            elif ctypes.get_errno() in (errno.ENOSPC, errno.ENOMEM):
                self._give_up()
                return
        self._watched = kept

    def wait(self, timeout_s: float) -> bool:
        """Wait until something may have changed, `wake` was called, or the time is over.

        Where nothing tells of changes this ends after `POLL_S` at the latest.

        Returns:
            Whether it is worth looking: False if the whole of `timeout_s` went by untold.
        """
        limit_s = timeout_s if self.is_told else min(timeout_s, POLL_S)
        ready = {fd for fd, _ in self._poll.poll(max(0.0, limit_s) * 1000)}
        if self._wakeup in ready:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wakeup)
        if self._fd is not None and self._fd in ready:
            _drain(self._fd)
        return bool(ready) or not self.is_told

    def wake(self) -> None:
        """End a `wait` at once, this one or the next."""
        with self._lock, contextlib.suppress(BlockingIOError):  # it has been woken often enough
            if self._wakeup >= 0:
                os.eventfd_write(self._wakeup, 1)

    def close(self) -> None:
        """Let go of everything. Closing twice is no error."""
        with self._lock:
            if self._wakeup >= 0:
                self._give_up()
                os.close(self._wakeup)
                self._wakeup = -1

    def _give_up(self) -> None:
        """No more inotify: its watches are used up, or it is over."""
        if self._fd is not None:
            self._poll.unregister(self._fd)
            os.close(self._fd)
            self._fd, self._watched = None, {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.inotify_init1.argtypes = [ctypes.c_int]
    libc.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
    libc.inotify_rm_watch.argtypes = [ctypes.c_int, ctypes.c_int]
    return libc


def _new_inotify() -> int | None:
    """A new inotify descriptor; None where the kernel or the user's limits have none."""
    make: Callable[[int], int] | None = getattr(_libc(), "inotify_init1", None)
    fd = -1 if make is None else make(os.O_CLOEXEC | os.O_NONBLOCK)
    return fd if fd >= 0 else None


def _drain(fd: int) -> None:
    """Forget what was told: who waited looks at everything. A flood is left for the next time."""
    for _ in range(_DRAINS_MOST):
        try:
            if len(os.read(fd, _READ_BYTES)) < _READ_BYTES // 2:
                return
        except BlockingIOError:
            return
