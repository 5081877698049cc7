"""The index on disk: a cache in the workspace's state directory, appended to, never just trusted.

A file is a base (every directory) followed by deltas (the directories that changed since). Each
part is a frame whose checksum is seeded with the one before, so parts of two writers can't be taken
for one history: reading stops at the first that does not fit, and an older index is only slower,
never wrong. A new base replaces the file by a rename. Nothing is synced. docs/internals/index.md
has the layout.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import xxhash

from crabrt.core.ids import ObjectId
from crabrt.core.listing import Listing
from crabrt.core.trees import Entry
from crabrt.errors import StoreUnavailable
from crabrt.workspace.index import Dir, Doubt, Linked
from crabrt.workspace.stamps import STAMP_BYTES

VERSION = 2
NAME = "index"

_MAGIC = b"crabidx\1"
_FRAME = struct.Struct("<QQ")  # payload length, checksum
_DELTAS_MIN_BYTES = 1 << 20


class Header(msgspec.Struct, frozen=True):
    """What an index as a whole says. Every part carries one; the last one counts.

    Attributes:
        version: of this layout.
        path, device, inode: of the workspace.
        boot: the boot it was written in.
        excludes: the configured patterns it was made under.
        root: of the state it describes.
        top: the entry of the workspace itself.
        files, size_bytes, names: totals of the state, and of the index.
        wall_ns, offset_ns: clocks when the state was read; see `stamps.clock_offset_ns`.
    """

    version: int
    path: bytes
    device: int
    inode: int
    boot: str
    excludes: tuple[str, ...]
    root: bytes
    top: Entry
    files: int
    size_bytes: int
    names: int
    wall_ns: int
    offset_ns: int


class _DirRecord(msgspec.Struct, frozen=True, array_like=True):
    number: int
    parent: int
    name: bytes
    stamp: bytes
    names: tuple[bytes, ...]
    stamps: bytes
    listing: Listing
    doubts: dict[bytes, Doubt]
    skipped: dict[bytes, str]
    ignores: bytes
    linked: tuple[Linked, ...]
    settled: bool


class _Part(msgspec.Struct, frozen=True, array_like=True):
    header: Header
    dirs: tuple[_DirRecord, ...]
    removed: tuple[int, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Part).decode


@dataclass(frozen=True, slots=True)
class Loaded:
    """An index read back: its last header, and the tree of directories."""

    header: Header
    root: Dir


class IndexFile:
    """The index file of one workspace, as one tracker reads and writes it.

    Appends only to a file that it knows to the last byte; whenever it does not (another process
    wrote, a torn tail, the first save) it writes a new base.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / NAME
        self._numbers: dict[Dir, int] = {}
        self._next = 0
        self._base_bytes = 0
        self._end: tuple[int, int, int] | None = None  # inode, length, last checksum

    def load(self) -> Loaded | None:
        """The index, or None where there is none that can be read."""
        try:
            with open(self._path, "rb") as file:
                data = file.read()
                inode = os.fstat(file.fileno()).st_ino
        except OSError:
            return None  # a cache that can't be read is no cache
        if not data.startswith(_MAGIC):
            return None
        state = _Assembly()
        at, checksum = len(_MAGIC), 0
        while len(data) - at >= _FRAME.size:
            length, found = _FRAME.unpack_from(data, at)
            begin = at + _FRAME.size
            payload = data[begin : begin + length]
            if len(payload) != length or xxhash.xxh3_64_intdigest(payload, seed=checksum) != found:
                break
            if not state.add(payload):
                return None
            at, checksum = begin + length, found
            self._base_bytes = self._base_bytes or length
        loaded = state.loaded()
        if loaded is not None:
            self._numbers = {node: number for number, node in state.dirs.items()}
            self._next = max(state.dirs) + 1
            self._end = (inode, len(data), checksum) if at == len(data) else None
        return loaded

    def save(
        self, header: Header, root: Dir, changed: Iterable[Dir], removed: Iterable[Dir]
    ) -> None:
        """Write what changed since the last `save` or `load`, or everything if that is not known.

        Args:
            header: of the state now.
            root: the index.
            changed: directories in the index that changed.
            removed: the topmost directories that left it.

        Raises:
            StoreUnavailable: it cannot be written.
        """
        try:
            if not self._append(header, changed, removed):
                self._write_base(header, root)
        except OSError as error:
            self._end = None
            raise StoreUnavailable(
                f"cannot save the workspace's index: {error.strerror}", where=str(self._path)
            ) from error

    def _append(self, header: Header, changed: Iterable[Dir], removed: Iterable[Dir]) -> bool:
        if self._end is None:
            return False
        inode, length, checksum = self._end
        if length > self._base_bytes + max(self._base_bytes, _DELTAS_MIN_BYTES):
            return False
        gone = [self._numbers.pop(n) for top in removed for n in top.walk() if n in self._numbers]
        nodes = sorted(changed, key=lambda node: node.depth)
        frame, checksum = _frame(
            _Part(header, tuple(map(self._record, nodes)), tuple(gone)), checksum
        )
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            status = os.fstat(fd)
            if (status.st_ino, status.st_size) != (inode, length):
                return False
            if os.write(fd, frame) != len(frame):
                return False  # the disk is full: readers stop at the torn part
        finally:
            os.close(fd)
        self._end = (inode, length + len(frame), checksum)
        return True

    def _write_base(self, header: Header, root: Dir) -> None:
        self._numbers = {}
        self._next = 0
        frame, checksum = _frame(_Part(header, tuple(map(self._record, root.walk())), ()), 0)
        temporary = self._directory / f"{NAME}.{os.urandom(8).hex()}.tmp"
        try:
            with open(temporary, "xb", opener=_private) as file:
                file.write(_MAGIC)
                file.write(frame)
                inode = os.fstat(file.fileno()).st_ino
            os.replace(temporary, self._path)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        self._base_bytes = len(frame)
        self._end = (inode, len(_MAGIC) + len(frame), checksum)

    def _record(self, node: Dir) -> _DirRecord:
        number = self._numbers.get(node)
        if number is None:
            number = self._numbers[node] = self._next
            self._next += 1
        return _DirRecord(
            number=number,
            parent=-1 if node.parent is None else self._numbers[node.parent],
            name=node.name,
            stamp=node.stamp,
            names=node.names,
            stamps=node.stamps,
            listing=node.listing,
            doubts=node.doubts,
            skipped=node.skipped,
            ignores=node.ignores,
            linked=node.linked,
            settled=node.settled,
        )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _frame(part: _Part, seed: int) -> tuple[bytes, int]:
    payload = _encode(part)
    checksum = xxhash.xxh3_64_intdigest(payload, seed=seed)
    return _FRAME.pack(len(payload), checksum) + payload, checksum


class _Assembly:
    """The tree as it grows part by part."""

    def __init__(self) -> None:
        self.dirs: dict[int, Dir] = {}
        self._header: Header | None = None

    def add(self, payload: bytes) -> bool:
        """Take one part; False if it makes no sense."""
        try:
            part = _decode(payload)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return False
        if part.header.version != VERSION:
            return False
        for number in part.removed:
            node = self.dirs.pop(number, None)
            if node is not None and node.parent is not None:
                node.parent.dirs.pop(node.name, None)
        self._header = part.header
        return all(map(self._put, part.dirs))

    def _put(self, record: _DirRecord) -> bool:
        node = self.dirs.get(record.number)
        if (
            len(record.stamps) != STAMP_BYTES * len(record.names)
            or len(record.stamp) != STAMP_BYTES
        ):
            return False
        if node is None:
            parent = self.dirs.get(record.parent)
            if (parent is None) != (record.parent == -1) or (parent is None and self.dirs):
                return False
            node = self.dirs[record.number] = Dir(parent, record.name)
            if parent is not None:
                parent.dirs[record.name] = node
        fields: dict[str, Any] = msgspec.structs.asdict(record)
        for name in ("number", "parent", "name"):
            del fields[name]
        for name, value in fields.items():
            setattr(node, name, value)
        return True

    def loaded(self) -> Loaded | None:
        """What came together; None if nothing did."""
        root = next((node for node in self.dirs.values() if node.parent is None), None)
        if root is None or self._header is None or len(self._header.root) != 32:
            return None
        return Loaded(self._header, root)


def root_of(header: Header) -> ObjectId:
    """The root id in a header."""
    return ObjectId(header.root)
