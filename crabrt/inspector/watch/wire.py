"""What a client and the owner of a group say to each other: msgpack on a SEQPACKET socket.

``Join`` with the workspace's directory as a descriptor -> ``Answer``; then ``Ask`` -> ``Answer``
with what a drain found, cut into packets of which the first byte says whether more follow. The
descriptor makes paths unnecessary: two processes need not agree on where something is mounted.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Final

import msgspec

from crabrt.inspector.watch.dirty import Dirty

VERSION: Final = 1
PACKET_BYTES: Final = 1 << 16
_ANSWER_BYTES_MOST: Final = 1 << 28
_LAST, _MORE = b"\0", b"\1"


class Join(msgspec.Struct, frozen=True, tag=True):
    """Feed the workspace whose directory comes along.

    Attributes:
        version: of this protocol; an owner of another one refuses.
        mark: see `Kin`.
    """

    version: int
    mark: bytes


class Ask(msgspec.Struct, frozen=True, tag=True):
    """What happened?

    Attributes:
        peek: see `Watch.peek`; an owner that does not know it drains, which tells no less.
    """

    peek: bool = False


class Answer(msgspec.Struct, frozen=True):
    """To either.

    Attributes:
        dirty: what happened; nothing yet as the answer to `Join`.
        refused: why the workspace is not fed.
        lost: why nothing can be told any more.
    """

    dirty: Dirty = Dirty()
    refused: str | None = None
    lost: str | None = None


_encode = msgspec.msgpack.Encoder().encode
_request = msgspec.msgpack.Decoder(Join | Ask).decode
_answer = msgspec.msgpack.Decoder(Answer).decode

ProtocolError = msgspec.DecodeError
"""What `request` and `receive` raise for bytes that nobody of this version sends."""


def encode(message: Join | Ask) -> bytes:
    """One packet."""
    return _encode(message)


def request(packet: bytes) -> Join | Ask:
    """Decode one packet.

    Raises:
        ProtocolError: it makes no sense.
    """
    message: Join | Ask = _request(packet)
    return message


def packets(answer: Answer) -> Iterator[bytes]:
    """The packets of an answer."""
    data = _encode(answer)
    room = PACKET_BYTES - 1
    for at in range(0, len(data), room):
        yield (_MORE if at + room < len(data) else _LAST) + data[at : at + room]


def receive(connection: socket.socket) -> Answer:
    """Wait for a whole answer.

    Raises:
        OSError: the connection broke, or its time is up; EOFError: the owner is gone.
        ProtocolError: it makes no sense.
    """
    data = bytearray()
    while len(data) < _ANSWER_BYTES_MOST:
        packet = connection.recv(PACKET_BYTES)
        if not packet:
            raise EOFError("the process that watched is gone")
        data += packet[1:]
        if packet[:1] == _LAST:
            return _answer(data)
    raise ProtocolError("an answer without an end")
