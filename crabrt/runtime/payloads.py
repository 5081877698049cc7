"""Encoded values in the journal and the store: small ones inline, large ones as objects.

Messages of a request are objects of their own, and the request lists their ids (``messages``).
"""

from __future__ import annotations

from collections.abc import Iterator

from crabrt.core.content import Content, piece_ids
from crabrt.core.entries import Payload
from crabrt.core.ports import ObjectReader, ObjectWriter
from crabrt.store.contents import put_bytes, read_bytes

INLINE_BYTES = 512
"""Encoded values up to this size lie in the journal itself."""


def put_payload(data: bytes, writer: ObjectWriter) -> Payload:
    """The payload of encoded bytes; large ones are put to `writer` (not flushed).

    Raises:
        StoreUnavailable: they cannot be written.
    """
    if len(data) <= INLINE_BYTES:
        return Payload(inline=data)
    return Payload(content=put_bytes(data, writer))


def payload_bytes(payload: Payload, reader: ObjectReader) -> bytes | None:
    """The encoded bytes of `payload`, or None where the value could not be encoded.

    Raises:
        DamagedObject: they cannot be read back.
    """
    if payload.content is not None:
        return read_bytes(payload.content, reader)
    return payload.inline


def read_messages(content: Content, reader: ObjectReader) -> Iterator[bytes]:
    """The encoded messages of a request, in order.

    Raises:
        DamagedObject: one cannot be read back.
    """
    for message_id in piece_ids(content, reader.get):
        yield reader.get(message_id)
