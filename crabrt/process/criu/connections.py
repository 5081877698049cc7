"""TCP connections that lead out of a tree come back closed, and nobody is sent anything.

A conversation has two ends, and only one of them goes back to an earlier instant. Brought back as
it was, such a socket would say that it is connected; its numbers would mean nothing to the other
end, or there is none any more, and who reads from it would wait for ever. So CRIU is shown an image
in which the socket is what is left of a connection that is over: in no state, and shut down both
ways. Who reads meets the end, who writes is told EPIPE, and poll(2) reports both. What had come and
was not read yet is gone with it. No port of this machine is taken, and the other end, or who has
its address by now, hears nothing.

That is how CRIU itself records a connection that has ended, and what its ``--tcp-close`` makes of
all of them (criu/sk-inet.c, criu/sk-tcp.c); those inside of a tree are to go on.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from crabrt.process import sockets
from crabrt.process.criu import wire
from crabrt.process.criu.causes import Cause, NotRevived
from crabrt.process.criu.growing import FILE

_SOCKET: Final = 4  # file_entry.isk of fdinfo.proto
_FAMILY, _PROTOCOL, _STATE, _PORT, _PEER_PORT = 3, 5, 6, 7, 8  # inet_sk_entry of sk-inet.proto
_ADDRESS, _PEER_ADDRESS, _SHUTDOWN = 11, 12, 19
_BOTH_WAYS: Final = 3  # sk_shutdown.BOTH of sk-opts.proto

# include/net/tcp_states.h
_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2, _CLOSED, _CLOSE_WAIT, _LAST_ACK, _CLOSING = (
    1,
    4,
    5,
    7,
    8,
    9,
    11,
)
_IS_OPEN: Final = frozenset({_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2})
"""The other end may still say something. Where it has closed before, nothing is lost."""
_CONNECTED: Final = _IS_OPEN | {_CLOSE_WAIT, _LAST_ACK, _CLOSING}

_End = tuple[str, int]


class _Connection(NamedTuple):
    """A connected socket of an image: its two ends, and the state it is in."""

    here: _End
    there: _End
    state: int


def changed(images: Path, files: bytes | None = None) -> Mapping[str, bytes]:
    """What CRIU is to see instead, by name, so that connections that lead out are over.

    Args:
        images: not changed.
        files: the list of files, where CRIU is to see another one than theirs.

    Raises:
        NotRevived: it cannot be read, or is not understood.
    """
    try:
        was = (images / FILE).read_bytes() if files is None else files
        messages = wire.entries(was, wire.FILES_MAGIC)
        inside = _inside(messages)
        over = [_file(message, inside) for message in messages]
    except (OSError, wire.NotUnderstood) as error:
        raise _unusable(images, error) from error
    return {} if over == messages else {FILE: wire.image(over, wire.FILES_MAGIC)}


def leading_out(images: Path) -> tuple[str, ...]:
    """The other ends of the open connections of an image that lead out: ``tcp 10.0.0.7:5432``.

    Args:
        images: not changed.

    Raises:
        NotRevived: the list of files cannot be read, or is not understood.
    """
    try:
        messages = wire.entries((images / FILE).read_bytes(), wire.FILES_MAGIC)
        inside = _inside(messages)
        ends = [
            one.there
            for one in _connections(messages)
            if one.state in _IS_OPEN and (one.there, one.here) not in inside
        ]
    except (OSError, wire.NotUnderstood) as error:
        raise _unusable(images, error) from error
    return tuple(map(_shown, ends))


def _unusable(images: Path, error: Exception) -> NotRevived:
    return NotRevived(
        f"the list of files among the images cannot be used: {error}",
        Cause.DAMAGED_IMAGE,
        where=str(images),
    )


def _inside(messages: Sequence[bytes]) -> frozenset[tuple[_End, _End]]:
    return frozenset((one.here, one.there) for one in _connections(messages))


def _connections(messages: Sequence[bytes]) -> Iterator[_Connection]:
    for message in messages:
        for field in wire.fields(message):
            found = _connection(field.data) if field.number == _SOCKET and field.data else None
            if found is not None:
                yield found


def _connection(message: bytes) -> _Connection | None:
    """What a socket is an end of; None if it is not connected, or by no TCP."""
    values = wire.numbers(message)
    state = values.get(_STATE, 0)
    if values.get(_PROTOCOL) != socket.IPPROTO_TCP or state not in _CONNECTED:
        return None
    here = _address(message, _ADDRESS, values), values.get(_PORT, 0)
    there = _address(message, _PEER_ADDRESS, values), values.get(_PEER_PORT, 0)
    return _Connection(here, there, state)


def _address(message: bytes, number: int, values: dict[int, int]) -> str:
    """An address: words of four bytes, each as this machine reads what goes over the wire."""
    words = wire.integers(message, number)
    if values.get(_FAMILY) == socket.AF_INET:
        words = words[:1]
    try:
        return sockets.shown(b"".join(word.to_bytes(4, sys.byteorder) for word in words))
    except (OverflowError, ValueError) as error:
        raise wire.NotUnderstood(f"no address: {error}") from error


def _shown(end: _End) -> str:
    address, port = end
    return f"tcp [{address}]:{port}" if ":" in address else f"tcp {address}:{port}"


def _file(message: bytes, inside: frozenset[tuple[_End, _End]]) -> bytes:
    parts = []
    for field in wire.fields(message):
        found = _connection(field.data) if field.number == _SOCKET and field.data else None
        if found is None or (found.there, found.here) in inside:
            parts.append(field.raw)
        else:
            parts.append(wire.bytes_field(_SOCKET, _over(field.data)))
    return b"".join(parts)


def _over(message: bytes) -> bytes:
    """A socket without its connection. The port is taken from it: somebody may have that now."""
    by = {
        _STATE: wire.varint_field(_STATE, _CLOSED),
        _PORT: wire.varint_field(_PORT, 0),
        _PEER_PORT: wire.varint_field(_PEER_PORT, 0),
        _SHUTDOWN: b"",
    }
    return wire.replaced(message, by) + wire.varint_field(_SHUTDOWN, _BOTH_WAYS)
