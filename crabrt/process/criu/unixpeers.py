"""Which Unix socket is connected to which: the kernel's socket diagnostics (sock_diag(7)).

``/proc/net/unix`` lists sockets, but not whom they are connected to.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY
_REQUEST_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR, _DONE = 2, 3
_SHOW_PEER: Final = 4  # UDIAG_SHOW_PEER
_PEER: Final = 2  # UNIX_DIAG_PEER
_HEADER: Final = struct.Struct("=IHHII")
_QUESTION: Final = struct.Struct("=BBHIII2I")
_ANSWER: Final = struct.Struct("=BBBBI2I")
_ATTRIBUTE: Final = struct.Struct("=HH")
_LIMIT_S: Final = 5.0
_READ_BYTES: Final = 1 << 16


def unix_peers() -> dict[int, int]:
    """The inode of the other end of each connected Unix socket of this network namespace, by inode.

    Raises:
        OSError: the kernel does not tell.
    """
    question = _QUESTION.pack(socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _SHOW_PEER, 0, 0)
    head = _HEADER.pack(_HEADER.size + len(question), _BY_FAMILY, _REQUEST_DUMP, 1, 0)
    peers: dict[int, int] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as asking:
        asking.settimeout(_LIMIT_S)
        asking.send(head + question)
        while _take(asking.recv(_READ_BYTES), peers):
            pass
    return peers


def _take(data: bytes, peers: dict[int, int]) -> bool:
    """Read one part of the answer into `peers`; whether there is more."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if kind == _DONE:
            return False
        if kind == _ERROR or length < _HEADER.size:
            raise OSError("the kernel does not tell who Unix sockets are connected to")
        body = data[at + _HEADER.size : at + length]
        if kind == _BY_FAMILY and len(body) >= _ANSWER.size:
            inode = _ANSWER.unpack_from(body)[4]
            peer = _peer(body[_ANSWER.size :])
            if peer:
                peers[inode] = peer
        at += -(-length // 4) * 4
    return True


def _peer(attributes: bytes) -> int:
    at = 0
    while at + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, at)
        if length < _ATTRIBUTE.size:
            break
        if kind == _PEER and length >= 8:
            return int.from_bytes(attributes[at + 4 : at + 8], "little")
        at += -(-length // 4) * 4
    return 0
