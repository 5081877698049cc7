"""A network namespace of one's own: every port is free in it, and nobody outside is reached.

It lives as long as somebody is in it, or has a descriptor of it. Loopback is up, and there is
nothing else: a server in it is reached by who is in it, and by ``nsenter``.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Self

from crabrt.core.processes import ProcessTree
from crabrt.process import sockets

_CLONE_NEWNET: Final = 0x4000_0000  # linux/sched.h
_SIOCSIFFLAGS: Final = 0x8914  # linux/sockios.h
_IFF_UP: Final = 1
_INTERFACE: Final = struct.Struct("16sh14x")  # struct ifreq of netdevice(7), as far as flags go
_ADDRESSED: Final = ("tcp ", "udp ", "unix @")
"""What a process listens at that belongs to a network namespace; other names are of files."""


class Network:
    """The network that something is started in. A context manager: leaving it lets go of it.

    Attributes:
        own: whether it is a namespace of its own, and not that of this process.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor
        self.own = descriptor is not None

    @classmethod
    def apart(cls) -> Self:
        """A new one.

        Raises:
            OSError: it takes root.
        """
        with ThreadPoolExecutor(1) as thread:  # a thread can leave the namespace of the others
            return cls(thread.submit(_made).result())

    @property
    def within(self) -> tuple[str, ...]:
        """What to put before a command so that it runs there."""
        if self._descriptor is None:
            return ()
        return ("nsenter", f"--net=/proc/{os.getpid()}/fd/{self._descriptor}", "--")

    def close(self) -> None:
        """Whoever is in it stays in it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _made() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"no network namespace can be made: {os.strerror(number)}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
        fcntl.ioctl(asked, _SIOCSIFFLAGS, _INTERFACE.pack(b"lo", _IFF_UP))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def is_apart(pid: int) -> bool:
    """Whether a process is in another network namespace than this one; False if nobody knows."""
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{pid}/ns/net").st_ino != os.stat("/proc/self/ns/net").st_ino
    return False


def into(pid: int) -> tuple[str, ...]:
    """What to put before a command so that it runs in the network of `pid`."""
    return ("nsenter", f"--net=/proc/{pid}/ns/net", "--") if is_apart(pid) else ()


def taken(trees: Iterable[ProcessTree]) -> tuple[str, ...]:
    """Where `trees` listened and somebody does now, in this process's network."""
    wanted = {
        where
        for tree in trees
        for one in tree.processes
        for where in one.listens
        if where.startswith(_ADDRESSED)
    }
    ports = {_port(where) for where in sockets.listening_sockets(os.getpid()).values()}
    return tuple(sorted(where for where in wanted if _port(where) in ports))


def _port(where: str) -> str:
    """Protocol and port alone: one that listens at every address is in the way of all others."""
    protocol, _, address = where.partition(" ")
    return where if protocol == "unix" else f"{protocol} {address.rpartition(':')[2]}"
