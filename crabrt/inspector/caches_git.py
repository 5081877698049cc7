"""Whether two git indexes differ in what git can make again alone: the stat cache. Pure.

``git status`` writes ``.git/index`` when it has looked at files whose times moved: the same
entries, with other stat fields. That is no change of anybody's work. A staged file is.

The layout is that of git's ``Documentation/gitformat-index.txt``, versions 2 to 4, for repositories
of SHA-1 and of SHA-256. Equal entries take equally many bytes, so both indexes are read in
lockstep; whatever else is found means that they differ.
"""

from __future__ import annotations

import hashlib
import struct

MAX_BYTES = 64 << 20
"""Larger indexes count as changed."""

_HEADER = struct.Struct(">4sII")
_STAT_BYTES = 24
"""ctime, mtime, device, inode: before the mode, which is no part of the stat cache."""

_MODE_END = 28
_CACHED_END = 40
"""Owner, group, size: behind the mode, before the object's name."""

_EXTENDED = 0x4000
_NAME_MASK = 0x0FFF

_DERIVED = frozenset({b"TREE", b"UNTR", b"FSMN", b"EOIE", b"IEOT"})
"""Extensions that git derives from entries and files: caches as well."""


def same_but_cached(before: bytes, after: bytes) -> bool:
    """Whether two index files record the same, stat fields and caches of git aside.

    False where one is no whole index of a known version.
    """
    if max(len(before), len(after)) > MAX_BYTES:
        return False
    return any(_same(before, after, size) for size in (20, 32))


def _same(before: bytes, after: bytes, id_bytes: int) -> bool:
    if not (_sealed(before, id_bytes) and _sealed(after, id_bytes)):
        return False
    header = before[: _HEADER.size]
    magic, version, count = _HEADER.unpack(header)
    if header != after[: _HEADER.size] or magic != b"DIRC" or version not in (2, 3, 4):
        return False
    end = _entries_end(before, after, version, count, id_bytes)
    if end is None:
        return False
    kept = _extensions(before, end, id_bytes)
    return kept is not None and kept == _extensions(after, end, id_bytes)


def _sealed(data: bytes, id_bytes: int) -> bool:
    """Whether the checksum at the end is right, or left out (``index.skipHash``)."""
    if len(data) < _HEADER.size + id_bytes:
        return False
    body, seal = data[:-id_bytes], data[-id_bytes:]
    if seal == bytes(id_bytes):
        return True
    digest = hashlib.sha1 if id_bytes == 20 else hashlib.sha256
    return digest(body, usedforsecurity=False).digest() == seal


def _entries_end(
    before: bytes, after: bytes, version: int, count: int, id_bytes: int
) -> int | None:
    """Where the entries end, if both have the same; None if they differ, or make no sense."""
    at, limit = _HEADER.size, min(len(before), len(after)) - id_bytes
    flags_at = _CACHED_END + id_bytes
    for _ in range(count):
        name_at = at + flags_at + 2
        if name_at >= limit:
            return None
        flags = before[name_at - 2] << 8 | before[name_at - 1]
        if flags & _EXTENDED:
            name_at += 2
        if version == 4:
            while name_at < limit and before[name_at] & 0x80:
                name_at += 1
            name_at += 1
            nul = before.find(b"\0", name_at, limit)
        elif flags & _NAME_MASK < _NAME_MASK:
            nul = name_at + (flags & _NAME_MASK)
        else:
            nul = before.find(b"\0", name_at, limit)
        if nul < 0:
            return None
        end = nul + 1 if version == 4 else at + ((nul - at) // 8 + 1) * 8
        mode, rest = slice(at + _STAT_BYTES, at + _MODE_END), slice(at + _CACHED_END, end)
        if end > limit or before[mode] != after[mode] or before[rest] != after[rest]:
            return None
        at = end
    return at


def _extensions(data: bytes, at: int, id_bytes: int) -> list[tuple[bytes, bytes]] | None:
    """The extensions that say something of their own; None if they do not end where they should."""
    found, end = [], len(data) - id_bytes
    while at < end:
        if at + 8 > end:
            return None
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8])
        at += 8 + size
        if at > end:
            return None
        if name not in _DERIVED:
            found.append((name, data[at - size : at]))
    return found
