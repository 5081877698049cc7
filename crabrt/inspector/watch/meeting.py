"""Where the processes of one user find each other: a lock that says who owns a group, and a socket.

The lock is an fcntl record lock: the kernel drops it when its owner dies, and a forked child does
not inherit it. It is lost, too, when its process closes any other descriptor of the file, so a
process that owns a group never opens the file again (`sharing` keeps the books). The socket is
bound under another name and renamed when it listens, so whoever connects is served.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import struct
from pathlib import Path
from typing import Final

from crabrt.inspector.watch.errors import Reason, Unwatchable

_BACKLOG: Final = 128
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_BOUND = re.compile(r"/proc/self/fd/\d+/[^/]+\.new")


class Meeting:
    """The files of one view in a directory that only this user can enter.

    Args:
        directory: made if absent, mode 0700, and the one that it is in.
        key: of the view.

    Raises:
        OSError: the directory cannot be made, or entered.
        Unwatchable: others may enter it, or it belongs to somebody else.
    """

    def __init__(self, directory: Path, key: str) -> None:
        self.key = key
        self._name = f"{key}.socket"
        for made in (directory.parent, directory):
            with contextlib.suppress(FileExistsError):
                made.mkdir(mode=0o700)
        self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        status = os.fstat(self._directory)
        self.identity = (status.st_dev, status.st_ino, key)
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            os.close(self._directory)
            raise Unwatchable(
                "others may enter the directory of observers",
                Reason.WORKSPACE,
                where=str(directory),
                hint="make it your own, with mode 0700",
            )

    def lock(self) -> int | None:
        """Become the owner: a descriptor that keeps the lock; None if another process is.

        Raises:
            OSError: the file cannot be opened or locked.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(f"{self.key}.lock", flags, 0o600, dir_fd=self._directory)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        return fd

    def listen(self) -> socket.socket:
        """The owner's socket, others can connect to it when this returns.

        Raises:
            OSError: it cannot be made.
        """
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            draft = f"{self.key}.new"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=self._directory)
            made.bind(self._through(draft))
            os.chmod(draft, 0o600, dir_fd=self._directory)
            made.listen(_BACKLOG)
            made.setblocking(False)
            os.replace(draft, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except BaseException:
            made.close()
            raise
        return made

    def connect(self, timeout_s: float) -> socket.socket:
        """A connection to the owner, who is proved to be the same user.

        Raises:
            OSError: nobody listens; PermissionError if somebody else does.
        """
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            made.settimeout(timeout_s)
            made.connect(self._through(self._name))
            _require_same_user(made)
        except BaseException:
            made.close()
            raise
        return made

    def leave(self) -> None:
        """The owner listens no more."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._directory)

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._directory)

    def _through(self, name: str) -> str:
        """A short path: those of sockets have room for 107 bytes only."""
        return f"/proc/self/fd/{self._directory}/{name}"


def is_meeting(path: str) -> bool:
    """Whether a socket that is bound to `path` is an owner's: others bind to no such name."""
    return _BOUND.fullmatch(path) is not None


def _require_same_user(connection: socket.socket) -> None:
    if peer_of(connection).uid != os.geteuid():
        raise PermissionError("another user listens there")


class Peer:
    """Who is at the other end of a connection, by the kernel's word."""

    __slots__ = ("pid", "uid")

    def __init__(self, pid: int, uid: int) -> None:
        self.pid = pid
        self.uid = uid


def peer_of(connection: socket.socket) -> Peer:
    """Who connected, or listened when this end connected.

    Raises:
        OSError: the connection is gone.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return Peer(pid, uid)
