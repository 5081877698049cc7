"""The bytes of a segment: one header, then frames. Layouts: `docs/internals/journal.md`.

A frame is valid at one offset of one segment only: its checksum is seeded with the segment's nonce
and the offset. Bytes that an agent planted in a payload, or blocks that the file system recycled,
never pass for a frame.

Each frame also says up to which offset its writer knew the segment to be durable. A reader that
meets broken bytes can therefore tell damage (a later frame vouches for them) from a torn tail
(nobody ever promised them).
"""

from __future__ import annotations

import struct

import msgspec
import xxhash
from blake3 import blake3

MAGIC = b"CRABJRNL"
VERSION = 1
NONCE_BYTES = 16
MAX_PAYLOAD_BYTES = 16 << 20
"""Entries are small (long values are objects of the store); a greater length is not believed."""

ENTRY_MARK = b"\xc1ENT"  # 0xc1 begins nothing in msgpack
SEAL_MARK = b"\xc1END"

_HEADER = struct.Struct("<8sHHIQQQQQQ32s16s32sQ")
_HEAD = struct.Struct("<4sIQ32s")
_SUM = struct.Struct("<Q")
_SEED = struct.Struct("<Q")

HEADER_BYTES = _HEADER.size + _SUM.size
"""160. The first 160 bytes keep their meaning in every version."""

HEAD_BYTES = _HEAD.size
FRAME_OVERHEAD = _HEAD.size + _SUM.size


class Header(msgspec.Struct, frozen=True):
    """What the first bytes of a segment say.

    Attributes:
        segment: its place in the journal, from 1.
        epoch: the lease epoch of its writer.
        first_seq: seq of the first entry in it.
        previous_epoch: epoch of the segment before it; 0 for the first one.
        previous_length: how many bytes of the segment before it are valid; what is beyond is void.
        previous_chain: the chain hash there; for the first segment a hash of the run id.
        nonce: random; tells the writers of two segments of one name apart.
        run: BLAKE3-256 of the id of the run that wrote it (a fork holds segments of its parent).
        created_ns: wall clock.
    """

    segment: int
    epoch: int
    first_seq: int
    previous_epoch: int
    previous_length: int
    previous_chain: bytes
    nonce: bytes
    run: bytes
    created_ns: int

    @property
    def seed(self) -> int:
        """What the checksums of this segment's frames are seeded with, before the offset."""
        return int(_SEED.unpack_from(self.nonce)[0])


class BadHeader(ValueError):
    """The bytes are no header: `torn` if it was never finished, else they were changed later."""

    def __init__(self, message: str, *, torn: bool) -> None:
        super().__init__(message)
        self.torn = torn


class NewerFormat(ValueError):
    """The segment was written by a newer crabrt, or requires a feature this one lacks."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One whole frame.

    Attributes:
        seal: whether it closes the segment (its payload is empty).
        durable: the writer knew the segment to be durable up to this offset.
        chain: the chain hash after this frame.
        payload: an encoded `core.envelopes.Entry`.
        end: offset behind it.
    """

    seal: bool
    durable: int
    chain: bytes
    payload: bytes
    end: int


def genesis(run: str) -> bytes:
    """The chain hash before the first entry of a run's journal."""
    return blake3(run.encode("utf-8", "surrogateescape")).digest()


def chain_after(chain: bytes, payload: bytes) -> bytes:
    """The chain hash after an entry: BLAKE3-256 of the one before it and the payload."""
    return blake3(chain + payload).digest()


def encode_header(header: Header) -> bytes:
    """The `HEADER_BYTES` bytes of `header`."""
    data = _HEADER.pack(
        MAGIC,
        VERSION,
        HEADER_BYTES,
        0,
        header.segment,
        header.epoch,
        header.first_seq,
        header.segment - 1,
        header.previous_epoch,
        header.previous_length,
        header.previous_chain,
        header.nonce,
        header.run,
        header.created_ns,
    )
    return data + _SUM.pack(xxhash.xxh3_64_intdigest(data))


def decode_header(data: bytes) -> Header:
    """Decode and check a header.

    Raises:
        BadHeader: too short, or its checksum fails. A checksum of zero bytes was never written: the
            header is written last and at once, so the writer died before anything depended on it.
        NewerFormat: a later version, or an unknown requirement.
    """
    if len(data) < HEADER_BYTES:
        raise BadHeader("the segment is shorter than its header", torn=True)
    (checksum,) = _SUM.unpack_from(data, _HEADER.size)
    fields = data[: _HEADER.size]
    if checksum != xxhash.xxh3_64_intdigest(fields):
        torn = checksum == 0
        raise BadHeader("the segment header's checksum does not match", torn=torn)
    (magic, version, _, requires, segment, epoch, first_seq, before, *rest) = _HEADER.unpack(fields)
    if magic != MAGIC:
        raise BadHeader("the segment does not begin with a journal's magic", torn=False)
    if version > VERSION or requires:
        raise NewerFormat(f"the segment has format version {version}, requirements {requires:#x}")
    if before != segment - 1 or first_seq < 1:
        raise BadHeader("the segment header contradicts itself", torn=False)
    return Header(segment, epoch, first_seq, *rest)


def encode_frame(
    payload: bytes, chain: bytes, *, durable: int, seed: int, offset: int, mark: bytes = ENTRY_MARK
) -> bytes:
    """The frame of `payload` at `offset` of the segment with that `seed`."""
    data = _HEAD.pack(mark, len(payload), durable, chain) + payload
    return data + _SUM.pack(xxhash.xxh3_64_intdigest(data, seed ^ offset))


def frame_length(data: bytes, at: int) -> int | None:
    """How long the frame at `data[at:]` claims to be; None if nothing there looks like one.

    `data` holds at least `HEAD_BYTES` from `at` on.
    """
    mark, length, _, _ = _HEAD.unpack_from(data, at)
    if mark not in (ENTRY_MARK, SEAL_MARK) or length > MAX_PAYLOAD_BYTES:
        return None
    return int(length) + FRAME_OVERHEAD


def decode_frame(data: bytes, at: int, length: int, *, seed: int, offset: int) -> Frame | None:
    """The frame of `length` bytes in `data[at:]`, which lie at `offset`; None if it is broken."""
    end = at + length - _SUM.size
    body = data[at:end]
    (checksum,) = _SUM.unpack_from(data, end)
    if checksum != xxhash.xxh3_64_intdigest(body, seed ^ offset):
        return None
    mark, _, durable, chain = _HEAD.unpack_from(body)
    if durable > offset:
        return None
    return Frame(mark == SEAL_MARK, durable, chain, body[HEAD_BYTES:], offset + length)
