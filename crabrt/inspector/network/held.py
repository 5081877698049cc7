"""What could be sent without connecting: the connections that were open when a call began.

A connection that is used again passes no tracepoint. So before a call is made that may be cleared,
what its run holds is noted, and afterwards it is asked whether anything went through: of the loop's
own TCP connections (the model's is mostly among them) the kernel counts the bytes; of all others
nobody knows.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass, field
from typing import Final

from crabrt.inspector.network import processes
from crabrt.inspector.network.values import HARMLESS
from crabrt.inspector.watch.meeting import is_meeting
from crabrt.process import sockets

_INFO_BYTES: Final = 256
_COUNTS = struct.Struct("=QQ")
_SENT_AT, _UNSENT_AT = 200, 144
"""In ``struct tcp_info`` (linux/tcp.h): bytes sent and, of those, sent again (since Linux 4.19);
and before them, in 32 bits, those that wait."""

_NONE: Final = frozenset(
    {errno.ENOENT, errno.EBADF, errno.ENOTSOCK, errno.ENOTCONN, errno.EOPNOTSUPP}
)
"""It was closed meanwhile, or is not connected."""


@dataclass(frozen=True)
class Held:
    """The connections that processes held at one moment.

    Attributes:
        own: of this process, by inode: how many bytes it had given to be sent; None: not known.
        others: whether other processes held any, or may have.
    """

    own: dict[int, int | None] = field(default_factory=dict)
    others: bool = False

    def may_have_sent(self) -> bool:
        """Whether anything may have gone through one of them since; asked in the same process."""
        if self.others or None in self.own.values():
            return True
        try:
            now = own_connections() if self.own else {}
        except OSError:
            return True
        return any(now.get(inode) != count for inode, count in self.own.items())


def held_by(own: int, mark: bytes) -> Held:
    """What this process, `own`, and those of its run hold just now. Never raises.

    Args:
        own: see `processes.members`.
        mark: likewise.
    """
    try:
        return Held(own_connections(), _others(own, mark))
    except OSError:
        return Held(others=True)


def _others(own: int, mark: bytes) -> bool:
    shared = sockets.held_inodes(own)  # what goes through those is counted, whoever sends it
    listed: dict[int | None, set[int]] = {}
    for pid in processes.members(own, mark):
        inodes = frozenset() if pid == own else sockets.held_inodes(pid) - shared
        if inodes:
            view = processes.network_of(pid)
            if view not in listed:
                listed[view] = {one.inode for one in sockets.connected_sockets(pid)}
            if inodes & listed[view]:
                return True
    return False


def own_connections() -> dict[int, int | None]:
    """The connected sockets of this process by inode, with the bytes it gave them to send.

    TCP and UDP in whichever network namespace; of AF_UNIX those that connected to a name, except
    `HARMLESS` ones and those that watches are shared through. Anything else that is connected.

    Raises:
        OSError: not all could be looked at.
    """
    found: dict[int, int | None] = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            inode = _inode(name)
            if inode is None or inode in found:
                continue
            with _again(int(name)) as one:
                if os.fstat(one.fileno()).st_ino == inode and _counts(one, one.getpeername()):
                    found[inode] = _given(one)
        except OSError as error:
            if error.errno not in _NONE:
                raise
    return found


def _inode(name: str) -> int | None:
    link = os.readlink(f"/proc/self/fd/{name}")
    return int(link[8:-1]) if link.startswith("socket:[") else None


def _again(fd: int) -> socket.socket:
    """A second descriptor of a socket: the first may be closed by whoever owns it at any time."""
    copy = os.dup(fd)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise


def _counts(one: socket.socket, peer: object) -> bool:
    if one.family == socket.AF_UNIX:  # without a name it is a pair, or who connected to us
        path = os.fsdecode(peer) if isinstance(peer, bytes) else str(peer)
        return bool(path) and not path.startswith(HARMLESS) and not is_meeting(path)
    return one.family != socket.AF_NETLINK  # the kernel itself


def _given(one: socket.socket) -> int | None:
    """The bytes that were given to a TCP socket to send; None where nobody counts them."""
    protocol = one.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)
    if one.family not in {socket.AF_INET, socket.AF_INET6} or protocol != socket.IPPROTO_TCP:
        return None
    info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    if len(info) < _SENT_AT + _COUNTS.size:
        return None
    sent, again = _COUNTS.unpack_from(info, _SENT_AT)
    unsent = int.from_bytes(info[_UNSENT_AT : _UNSENT_AT + 4], "little")
    return int(sent) - int(again) + unsent
