"""One record of a pack: a checksummed header, then the stored bytes of one object.

::

    offset  size  field
         0     4  magic "CRo1"
         4     1  kind (core.ids.ObjectKind)
         5     1  codec (0 raw, 1 zstd)
         6     2  zero
         8     4  raw length
        12     4  stored length
        16    32  object id
        48     8  xxh3-64 of bytes 0..47 and of the stored bytes
        56     -  the stored bytes

All numbers are little-endian. The checksum finds torn writes and bit rot cheaply; only the id says
that the bytes are the right ones.
"""

from __future__ import annotations

import struct

import msgspec
import xxhash

from crabrt.core.ids import Buffer, ObjectId, ObjectKind
from crabrt.store.compression import OBJECT_MAX, Codec

MAGIC = b"CRo1"
_FIELDS = struct.Struct("<4sBBHII32s")
_CHECKSUM = struct.Struct("<Q")
HEADER_BYTES = _FIELDS.size + _CHECKSUM.size
STORED_MAX = OBJECT_MAX
"""Longest payload: compressed bytes are kept only where they are fewer than the raw ones."""

_KINDS = frozenset(int(kind) for kind in ObjectKind)
_CODECS = frozenset(int(codec) for codec in Codec)


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A parsed header. `checksum` has not been compared yet: that needs the payload."""

    id: ObjectId
    kind: int
    codec: int
    raw: int
    stored: int
    checksum: int
    fields: bytes

    @property
    def length(self) -> int:
        """Bytes of the whole record."""
        return HEADER_BYTES + self.stored


def header(object_id: ObjectId, kind: int, codec: int, raw: int, payload: Buffer) -> bytes:
    """The header of a record with this payload."""
    fields = _FIELDS.pack(MAGIC, kind, codec, 0, raw, len(payload), object_id)
    digest = xxhash.xxh3_64(fields)
    digest.update(payload)
    return fields + _CHECKSUM.pack(digest.intdigest())


def plausible(kind: int, raw: int, stored: int) -> bool:
    """Whether any record can be of this kind and these lengths."""
    return kind in _KINDS and 0 <= raw <= OBJECT_MAX and 0 <= stored <= STORED_MAX


def parse(data: Buffer) -> Frame | None:
    """The frame whose header starts `data`, or None when no plausible header is there."""
    if len(data) < HEADER_BYTES:
        return None
    fields = bytes(data[: _FIELDS.size])
    magic, kind, codec, zero, raw, stored, object_id = _FIELDS.unpack(fields)
    if magic != MAGIC or zero or codec not in _CODECS or not plausible(kind, raw, stored):
        return None
    (checksum,) = _CHECKSUM.unpack(data[_FIELDS.size : HEADER_BYTES])
    return Frame(object_id, kind, codec, raw, stored, checksum, fields)


def intact(frame: Frame, payload: Buffer) -> bool:
    """Whether `payload` is what the frame was written with."""
    if len(payload) != frame.stored:
        return False
    digest = xxhash.xxh3_64(frame.fields)
    digest.update(payload)
    return digest.intdigest() == frame.checksum
