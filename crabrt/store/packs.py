"""Packs, for reading: header, records, and the index footer that seals them.

::

    pack    = header, record*, [footer]           records: see `frames`
    header  = magic "CRABPACK" 8, version u16, zero 6, pack name 16, xxh3-64 of these 8   (40 bytes)
    footer  = entry*, trailer                                              only in sealed packs
    entry   = id 32, offset u32, raw length u32, stored length u32, kind u8, zero 3       (48 bytes)
    trailer = number of entries u32, zero u32, xxh3-64 of entries and of these 8, magic "CRABSEAL"

A pack's name is its writer's id (12 bytes) and that writer's count of packs (4 bytes), so that
whose pack it is can be told even where the header was never written. Entries are in record order,
and records lie without gaps: a footer that says otherwise is damage.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import xxhash

from crabrt.core.ids import ObjectId
from crabrt.store import frames

MAGIC = b"CRABPACK"
SEAL = b"CRABSEAL"
VERSION = 1
_HEADER = struct.Struct("<8sH6x16sQ")
_ENTRY = struct.Struct("<32sIIIB3x")
_TRAILER = struct.Struct("<IIQ8s")
HEADER_BYTES: Final = _HEADER.size
ENTRY_BYTES: Final = _ENTRY.size
TRAILER_BYTES: Final = _TRAILER.size
PACK_MAX: Final = (1 << 32) - 1
_READ_AHEAD = 1 << 20


class Location(msgspec.Struct, frozen=True, gc=False):
    """Where a record is: `offset` is its header's; `raw` and `stored` are lengths in bytes."""

    pack: str
    offset: int
    stored: int
    raw: int
    kind: int

    @property
    def length(self) -> int:
        """Bytes of the whole record."""
        return frames.HEADER_BYTES + self.stored


class Item(msgspec.Struct, frozen=True, gc=False):
    """A record's id and where it is."""

    id: ObjectId
    at: Location


class Descriptor:
    """A file descriptor that is closed when nobody refers to it any more."""

    __slots__ = ("fd",)

    def __init__(self, path: Path) -> None:
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


def header_bytes(name: str) -> bytes:
    """The header of the pack called `name`."""
    start = _HEADER.pack(MAGIC, VERSION, bytes.fromhex(name), 0)[:-8]
    return start + struct.pack("<Q", xxhash.xxh3_64_intdigest(start))


def header_problem(fd: int, name: str) -> str | None:
    """Why the file is not the pack called `name`, or None."""
    data = os.pread(fd, HEADER_BYTES, 0)
    if len(data) < HEADER_BYTES:
        return "its header is incomplete"
    if data == header_bytes(name):
        return None
    if data[:8] != MAGIC:
        return "it does not start like a pack"
    return "its header is damaged or belongs to another pack"


def header_version(path: Path) -> int | None:
    """The version that a pack's header says; None where it says none.

    Raises:
        OSError: it cannot be read.
    """
    file = Descriptor(path)
    data = os.pread(file.fd, HEADER_BYTES, 0)
    if len(data) < HEADER_BYTES or data[:8] != MAGIC:
        return None
    if struct.unpack("<Q", data[-8:])[0] != xxhash.xxh3_64_intdigest(data[:-8]):
        return None
    return int(_HEADER.unpack(data)[1])


def entry_bytes(item: Item) -> bytes:
    """The footer entry of a record."""
    at = item.at
    return _ENTRY.pack(item.id, at.offset, at.raw, at.stored, at.kind)


def footer_bytes(entries: bytes | bytearray) -> bytes:
    """The footer that seals a pack with these entries."""
    counts = struct.pack("<II", len(entries) // ENTRY_BYTES, 0)
    digest = xxhash.xxh3_64(entries)
    digest.update(counts)
    return bytes(entries) + counts + struct.pack("<Q", digest.intdigest()) + SEAL


class Footer(msgspec.Struct, frozen=True, gc=False):
    """A parsed footer: `entries` still encoded, `start` where the records end."""

    entries: bytes
    start: int

    def items(self, name: str) -> Iterator[Item]:
        """The records it lists, in order."""
        for object_id, offset, raw, stored, kind in _ENTRY.iter_unpack(self.entries):
            yield Item(ObjectId(object_id), Location(name, offset, stored, raw, kind))


class NoFooter(Exception):
    """The pack is not sealed, or its footer is `damaged`."""

    def __init__(self, reason: str, *, damaged: bool) -> None:
        super().__init__(reason)
        self.damaged = damaged


def read_footer(fd: int) -> Footer:
    """Read and verify the footer of an open pack.

    Raises:
        NoFooter: there is none, or it is damaged.
        OSError: it cannot be read.
    """
    size = os.fstat(fd).st_size
    if size < HEADER_BYTES + TRAILER_BYTES:
        raise NoFooter("it is too short for a footer", damaged=False)
    trailer = os.pread(fd, TRAILER_BYTES, size - TRAILER_BYTES)
    if len(trailer) < TRAILER_BYTES or trailer[-8:] != SEAL:
        raise NoFooter("it is not sealed", damaged=False)
    count, zero, checksum, _ = _TRAILER.unpack(trailer)
    start = size - TRAILER_BYTES - count * ENTRY_BYTES
    if zero or start < HEADER_BYTES:
        raise NoFooter("its trailer is damaged", damaged=True)
    entries = read_exactly(fd, count * ENTRY_BYTES, start)
    digest = xxhash.xxh3_64(entries)
    digest.update(trailer[:8])
    if digest.intdigest() != checksum:
        raise NoFooter("its index is damaged", damaged=True)
    end = HEADER_BYTES
    for _, offset, raw, stored, kind in _ENTRY.iter_unpack(entries):
        if offset != end:
            raise NoFooter("its index has gaps", damaged=True)
        if not frames.plausible(kind, raw, stored):
            raise NoFooter("its index lists what no record can be", damaged=True)
        end += frames.HEADER_BYTES + stored
    if end != start:
        raise NoFooter("its index does not end at the last record", damaged=True)
    return Footer(entries, start)


def read_exactly(fd: int, length: int, offset: int) -> bytes:
    """``pread`` until `length` bytes are there or the file ends."""
    parts: list[bytes] = []
    while length > 0:
        part = os.pread(fd, length, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def scan(fd: int, name: str, start: int) -> Iterator[Item]:
    """The intact records from offset `start` on; ends quietly at the first that is not one.

    Payloads are read and compared with the frame checksum, so what comes out was written whole.

    Raises:
        OSError: the pack cannot be read.
    """
    offset = start
    window = b""
    base = start
    while True:
        at = offset - base
        frame = frames.parse(memoryview(window)[at : at + frames.HEADER_BYTES])
        if frame is None or at + frame.length > len(window):
            need = max(_READ_AHEAD, frame.length if frame else 0)
            fresh = read_exactly(fd, need, offset)
            if base == offset and len(fresh) <= len(window):
                return
            window, base = fresh, offset
            continue
        payload = memoryview(window)[at + frames.HEADER_BYTES : at + frame.length]
        if not frames.intact(frame, payload):
            return
        yield Item(frame.id, Location(name, offset, frame.stored, frame.raw, frame.kind))
        offset += frame.length


def salvage(fd: int, name: str, start: int) -> Iterator[Item]:
    """Every intact record at or behind `start` in a damaged pack, found by its magic.

    Bytes inside a payload may look like a record; that is harmless, as what is taken is verified
    against its own id before it is used.

    Raises:
        OSError: the pack cannot be read.
    """
    size = os.fstat(fd).st_size
    offset = _next_magic(fd, start, size)
    while offset < size:
        end = offset
        for item in scan(fd, name, offset):
            yield item
            end = item.at.offset + item.at.length
        offset = _next_magic(fd, end if end > offset else offset + 1, size)


def _next_magic(fd: int, offset: int, size: int) -> int:
    while offset < size:
        data = read_exactly(fd, _READ_AHEAD, offset)
        found = data.find(frames.MAGIC)
        if found >= 0:
            return offset + found
        if len(data) < len(frames.MAGIC):
            return size
        offset += len(data) - len(frames.MAGIC) + 1
    return size
