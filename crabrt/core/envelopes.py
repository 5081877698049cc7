"""An entry as it is framed in a journal: the envelope (place, time, kind) round an encoded body.

A reader that meets an unknown kind skips it only if the envelope says ``optional``; otherwise the
journal needs a newer crabrt.
"""

from __future__ import annotations

from typing import Any

import msgspec

from crabrt.core.entries import BODIES, Body


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """The envelope, as it is framed in a segment.

    Attributes:
        seq: place in the run's total order, from 1.
        turn: the open turn when it was written.
        wall_ns, mono_ns, boot: when, on which clocks (`core.clock`).
        kind: name of the body's type.
        optional: an old reader may skip it.
        body: msgpack of the body.
    """

    seq: int
    turn: int
    wall_ns: int
    mono_ns: int
    boot: str
    kind: str
    optional: bool
    body: msgspec.Raw


_ENCODER = msgspec.msgpack.Encoder()
_ENTRY_DECODER = msgspec.msgpack.Decoder(Entry)
_BODY_DECODERS: dict[str, msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(cls) for kind, cls in BODIES.items()
}


def encode_entry(
    body: Body, *, seq: int, turn: int, wall_ns: int, mono_ns: int, boot: str
) -> bytes:
    """The framed payload of an entry."""
    raw = msgspec.Raw(_ENCODER.encode(body))
    return _ENCODER.encode(Entry(seq, turn, wall_ns, mono_ns, boot, body.kind, body.optional, raw))


def decode_entry(data: bytes) -> Entry:
    """The envelope in `data`; the body stays encoded until `body_of`.

    Raises:
        msgspec.DecodeError, msgspec.ValidationError: it is not an entry.
    """
    return _ENTRY_DECODER.decode(data)


def body_of(entry: Entry) -> Body | None:
    """The body, or None for an unknown kind that may be skipped.

    Raises:
        KeyError: an unknown kind that may not be skipped.
        msgspec.DecodeError, msgspec.ValidationError: the body does not fit its kind.
    """
    decoder = _BODY_DECODERS.get(entry.kind)
    if decoder is None:
        if entry.optional:
            return None
        raise KeyError(entry.kind)
    body = decoder.decode(entry.body)
    assert isinstance(body, Body)
    return body
