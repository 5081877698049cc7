"""The bytes of files and of long payloads: cut into pieces, stored, and put together again.

The rule, which is part of the format. Up to 256 KiB: one piece. Longer: the bytes are seen as
blocks of 1 MiB from the start; each whole block of zeros is the zero piece; every run of other
blocks is cut by FastCDC (Xia et al., 2016; the 2020 variant) on its own. So the cut depends neither
on how a caller read the bytes nor on which of their zeros are holes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Final

import msgspec

from crabrt.core.content import EMPTY, Content, build, piece_ids
from crabrt.core.ids import Buffer, ObjectId, ObjectKind, object_id
from crabrt.core.ports import ObjectReader, ObjectWriter
from crabrt.errors import DamagedObject, UsageError
from crabrt.store.format import Chunker

if TYPE_CHECKING:
    from pyfastcdc import FastCDC

BLOCK_BYTES: Final = 1 << 20
WHOLE_MAX: Final = 256 << 10
"""Contents up to this length are one piece."""

ZERO_BLOCK: Final = bytes(BLOCK_BYTES)
"""1 MiB of zeros. `read_blocks` yields this very object for every zero piece."""

_CHUNKER = Chunker()
_WINDOW_BYTES = 4 << 20
_PROBE = ZERO_BLOCK[:64]

Segment = Buffer | int
"""Some bytes, or a number of 1 MiB blocks of zeros."""


@functools.cache
def zero_id() -> ObjectId:
    """The id of the zero piece."""
    return object_id(ZERO_BLOCK)


def put_bytes(data: bytes, writer: ObjectWriter) -> Content:
    """Store `data`; where it is.

    Raises:
        StoreUnavailable: it cannot be written.
    """
    if not data:
        return EMPTY
    if len(data) <= WHOLE_MAX:
        return Content(len(data), 0, (writer.put(data, ObjectKind.DATA),))
    return put_stream((data,), writer)


def put_stream(segments: Iterable[Segment], writer: ObjectWriter) -> Content:
    """Store a long string of bytes that comes in segments; where it is.

    Args:
        segments: bytes-like of any length, or a count of zero blocks (legal where what came
            before is a whole number of blocks), so that holes need not be read. Segments of whole
            blocks are fastest. A segment is not used after the next one was asked for.
        writer: where the pieces go.

    Memory: about 10 MiB, whatever the length.

    Raises:
        StoreUnavailable: it cannot be written.
        UsageError: a count of zero blocks came where no block begins.
    """
    size = 0

    def counted() -> Iterator[memoryview | int]:
        nonlocal size
        for span in _aligned(segments):
            size += span * BLOCK_BYTES if isinstance(span, int) else len(span)
            yield span

    spans = counted()
    first = next(spans, None)
    if first is None:
        return EMPTY
    if not isinstance(first, int) and len(first) <= WHOLE_MAX:  # shorter than a block: the end
        return Content(size, 0, (writer.put(bytes(first), ObjectKind.DATA),))
    content = build(0, _pieces(chain((first,), spans), writer), writer.put)
    return msgspec.structs.replace(content, size=size)


def _aligned(segments: Iterable[Segment]) -> Iterator[memoryview | int]:
    """The same bytes in spans of whole blocks; only the last may be shorter."""
    partial = bytearray()
    for segment in segments:
        if isinstance(segment, int):
            if partial:
                raise UsageError("a count of zero blocks must stand where a block begins")
            if segment:
                yield segment
            continue
        view = memoryview(segment).cast("B")
        if partial:
            taken = view[: BLOCK_BYTES - len(partial)]
            partial += taken
            view = view[len(taken) :]
            if len(partial) < BLOCK_BYTES:
                continue
            yield memoryview(partial)
            partial = bytearray()
        whole = len(view) - len(view) % BLOCK_BYTES
        if whole:
            yield view[:whole]
        partial += view[whole:]
    if partial:
        yield memoryview(partial)


def _pieces(spans: Iterable[memoryview | int], writer: ObjectWriter) -> Iterator[ObjectId]:
    cutter = _Cutter()
    for span in spans:
        for part in (span,) if isinstance(span, int) else _split(span):
            if isinstance(part, int):
                for piece in cutter.finish():
                    yield writer.put(piece, ObjectKind.DATA)
                zero = writer.put(ZERO_BLOCK, ObjectKind.DATA)
                for _ in range(part):
                    yield zero
            else:
                for piece in cutter.feed(part):
                    yield writer.put(piece, ObjectKind.DATA)
    for piece in cutter.finish():
        yield writer.put(piece, ObjectKind.DATA)


def _split(span: memoryview) -> Iterator[memoryview | int]:
    """A span as maximal runs of data and of zero blocks."""
    start = 0
    zeros = 0
    for offset in range(0, len(span), BLOCK_BYTES):
        if _is_zero(span[offset : offset + BLOCK_BYTES]):
            if offset > start:
                yield span[start:offset]
            zeros += 1
            start = offset + BLOCK_BYTES
        elif zeros:
            yield zeros
            zeros = 0
    if zeros:
        yield zeros
    if start < len(span):
        yield span[start:]


def _is_zero(block: memoryview) -> bool:
    # Comparing memoryviews goes item by item; bytes compare at memory speed.
    return (
        len(block) == BLOCK_BYTES
        and bytes(block[: len(_PROBE)]) == _PROBE
        and bytes(block) == ZERO_BLOCK
    )


class _Cutter:
    """FastCDC over a run that comes in parts.

    A cut is decided by the bytes from the previous cut up to the longest piece, so a piece is
    final once that much is there; the rest waits for the next part.
    """

    def __init__(self) -> None:
        self._chunker = _new_chunker()
        self._rest = b""

    def feed(self, part: memoryview) -> Iterator[bytes]:
        """The pieces that are final now."""
        for offset in range(0, len(part), _WINDOW_BYTES):
            window = self._rest + part[offset : offset + _WINDOW_BYTES]
            end = 0
            for chunk in self._chunker.cut_buf(window):
                if chunk.offset + _CHUNKER.max > len(window):
                    break
                end = chunk.offset + chunk.length
                yield bytes(chunk.data)
            self._rest = window[end:]

    def finish(self) -> Iterator[bytes]:
        """The pieces of what is left; the run ends here."""
        rest, self._rest = self._rest, b""
        if rest:
            for chunk in self._chunker.cut_buf(rest):
                yield bytes(chunk.data)


def _new_chunker() -> FastCDC:
    """A chunker of its own for each call: they are not safe to share.

    Raises:
        UsageError: only the pure-Python form is there, which is a hundred times slower.
    """
    from pyfastcdc import FastCDC  # noqa: PLC0415 - 10 ms that few imports of crabrt need

    if not FastCDC.__module__.startswith("pyfastcdc.cy"):
        raise UsageError(
            "pyfastcdc is installed without its compiled form",
            hint="pip install --force-reinstall pyfastcdc",
        )
    return FastCDC(
        _CHUNKER.avg,
        min_size=_CHUNKER.min,
        max_size=_CHUNKER.max,
        normalized_chunking=1,
        seed=_CHUNKER.seed,
    )


def read_blocks(content: Content, reader: ObjectReader) -> Iterator[bytes]:
    """The bytes of `content`, a piece at a time; `ZERO_BLOCK` itself for zero pieces.

    Raises:
        DamagedObject: a piece is missing or wrong, or they do not add up to the size.
    """
    left = content.size
    for piece_id in piece_ids(content, reader.get):
        piece = ZERO_BLOCK if piece_id == zero_id() else reader.get(piece_id, ObjectKind.DATA)
        left -= len(piece)
        if left < 0:
            break
        yield piece
    if left:
        raise DamagedObject(
            f"the pieces of a content of {content.size} bytes do not add up to it",
            where=content.ids[0].hex() if content.ids else None,
        )


def read_bytes(content: Content, reader: ObjectReader) -> bytes:
    """The bytes of `content` at once.

    Raises:
        DamagedObject: as `read_blocks`.
    """
    return b"".join(read_blocks(content, reader))
