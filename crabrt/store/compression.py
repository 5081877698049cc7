"""Whether and how an object's bytes are compressed: zstd where it pays, raw where it does not.

zstd contexts are not safe to share, so each thread has its own. Incompressible bytes (media,
archives, keys) are recognised by a sample, which costs about 1 % of compressing them in vain.
"""

from __future__ import annotations

import threading
from enum import IntEnum

import zstandard

from crabrt.core.ids import Buffer, ObjectKind

LEVEL = 1
"""On source text 4 % more bytes than level 3 in four fifths of the time, which is the largest part
of a capture's."""
NODE_LEVEL = -1
"""For tree nodes and lists of ids: a third of their bytes and more are ids, which do not shrink, so
the quick level saves nearly as much in a third of the time."""
FEW_BYTES = 64 << 10
FEW_LEVEL = 5
"""For objects that are put together and come to no more than `FEW_BYTES`: a turn that edits one
file. There the time does not matter, and the bytes of many such turns add up."""
OBJECT_MAX = 64 << 20
"""Longest object. Longer contents are cut into pieces; a longer length on disk is damage."""

_WORTH_TRYING = 64  # bytes; below, the frame eats what is gained
_SAMPLE_FROM = 32 << 10  # bytes; below, compressing in vain costs less than every sample
_SLICE = 1024
_SAVES_AT_LEAST = 0.03


class Codec(IntEnum):
    """How a payload is stored; a byte of the frame header."""

    RAW = 0
    ZSTD = 1


class _Contexts(threading.local):
    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=LEVEL)
        self.few = zstandard.ZstdCompressor(level=FEW_LEVEL)
        self.quick = zstandard.ZstdCompressor(level=NODE_LEVEL)
        self.sampler = zstandard.ZstdCompressor(level=1)
        self.decompressor = zstandard.ZstdDecompressor()


_contexts = _Contexts()


def compress(
    data: Buffer, kind: ObjectKind = ObjectKind.DATA, *, together_bytes: int | None = None
) -> tuple[Codec, Buffer]:
    """What to store for `data`: zstd if that saves at least 3 %, else `data` itself.

    Args:
        data: an object.
        kind: of it.
        together_bytes: of all objects that are put with it; None: many.
    """
    size = len(data)
    if size < _WORTH_TRYING or (size >= _SAMPLE_FROM and _looks_dense(memoryview(data))):
        return Codec.RAW, data
    packed = _compressor(kind, together_bytes).compress(data)
    if len(packed) > size * (1 - _SAVES_AT_LEAST):
        return Codec.RAW, data
    return Codec.ZSTD, packed


def _compressor(kind: ObjectKind, together_bytes: int | None) -> zstandard.ZstdCompressor:
    if together_bytes is not None and together_bytes <= FEW_BYTES:
        return _contexts.few
    return _contexts.compressor if kind is ObjectKind.DATA else _contexts.quick


def _looks_dense(data: memoryview) -> bool:
    middle = len(data) // 2
    sample = b"".join((data[:_SLICE], data[middle : middle + _SLICE], data[-_SLICE:]))
    return len(_contexts.sampler.compress(sample)) > len(sample) * (1 - _SAVES_AT_LEAST)


def decompress(codec: int, payload: Buffer, raw_length: int) -> bytes:
    """The raw bytes of a stored payload.

    Raises:
        ValueError: the codec is unknown, or the payload does not give `raw_length` bytes.
    """
    if codec == Codec.RAW:
        data = bytes(payload)
    elif codec == Codec.ZSTD:
        try:
            if zstandard.frame_content_size(payload) != raw_length:
                raise ValueError("the compressed length is not the recorded one")
            data = _contexts.decompressor.decompress(payload)
        except zstandard.ZstdError as error:
            raise ValueError(f"zstd: {error}") from error
    else:
        raise ValueError(f"unknown codec {codec}")
    if len(data) != raw_length:
        raise ValueError(f"{len(data)} bytes instead of {raw_length}")
    return data
