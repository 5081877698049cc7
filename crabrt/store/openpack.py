"""A pack while it is written: appends, hand-over to the kernel, sync, seal.

Not thread-safe: its writer's lock guards it, but for `sync`, which touches nothing except the file
and may run beside appends.

States of a record: *buffered* (at or beyond `written_to`: lost with the process), *written* (below
it: survives SIGKILL), *durable* (below the offset the last successful `sync` was told).
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import msgspec

from crabrt.core import failpoints
from crabrt.core.ids import Buffer, ObjectId
from crabrt.store import layout, packs

BUFFER_BYTES = 1 << 20

_created = failpoints.declare("pack.created", "an empty pack file exists")
_appended = failpoints.declare("pack.appended", "records are written to a pack and not synced")
_synced = failpoints.declare("pack.synced", "a pack's records are durable, its name perhaps not")
_named = failpoints.declare(
    "pack.named", "a pack's records and its name are durable, nothing refers to them"
)
_sealed = failpoints.declare(
    "pack.sealed", "a pack is durable and has its footer, which is not synced"
)


class Record(msgspec.Struct, frozen=True, gc=False):
    """An object ready to be appended; `raw` is its length in bytes, `kind` its `ObjectKind`."""

    id: ObjectId
    kind: int
    raw: int
    header: bytes
    payload: Buffer


class OpenPack:
    """One pack file open for appending. The file appears with the first hand-over."""

    def __init__(self, home: Path, name: str) -> None:
        self.name = name
        self.path = layout.pack_path(home, name)
        self.end = packs.HEADER_BYTES
        self.written_to = 0
        self.durable_to = 0
        self.catalogued_to = 0
        self.sealed = False
        self.records = 0
        self._uncatalogued: deque[packs.Item] = deque()
        self._home = home
        self._buffer = bytearray(packs.header_bytes(name))
        self._entries = bytearray()
        self._fd = -1
        self._named = False

    @property
    def dirty(self) -> bool:
        """Whether a sync has something to do."""
        return self.written_to > self.durable_to

    @property
    def buffered(self) -> int:
        """Bytes not yet handed to the kernel."""
        return len(self._buffer)

    def durable_items(self) -> list[packs.Item]:
        """The durable records that the catalog does not have yet."""
        return list(takewhile(lambda item: item.at.offset < self.durable_to, self._uncatalogued))

    def drop_items(self, count: int) -> None:
        """The first `count` of them are the catalog's now."""
        for _ in range(count):
            self._uncatalogued.popleft()

    def append(self, record: Record) -> packs.Location:
        """Buffer a record; where it is."""
        self._drop_unfinished()
        header, payload = record.header, record.payload
        stored = len(payload)
        at = packs.Location(self.name, self.end, stored, record.raw, record.kind)
        item = packs.Item(record.id, at)
        self._buffer += header
        self._buffer += payload
        self._entries += packs.entry_bytes(item)
        self._uncatalogued.append(item)
        self.end, self.records = self.end + at.length, self.records + 1
        return at

    def _drop_unfinished(self) -> None:
        """Drop what an interrupted `append` left: a signal's handler may raise anywhere in it."""
        length = self.end - self.written_to
        if len(self._buffer) > length:
            del self._buffer[length:]
            del self._entries[self.records * packs.ENTRY_BYTES :]
            while self._uncatalogued and self._uncatalogued[-1].at.offset >= self.end:
                self._uncatalogued.pop()

    def write_out(self) -> None:
        """Hand everything buffered to the kernel.

        Raises:
            OSError: it cannot be written; `cut` afterwards.
        """
        self._drop_unfinished()
        if not self._buffer or not self.records:
            return
        if self._fd < 0:
            self._create()
        layout.write_all(self._fd, self._buffer, self.written_to)
        self.written_to, self._buffer = self.end, bytearray()
        _appended()

    def _create(self) -> None:
        layout.make_directory(self.path.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd = os.open(self.path, flags, 0o600)
        _created()

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of a record, wherever they are now.

        Raises:
            OSError: the file cannot be read.
        """
        at = offset - self.written_to
        if at >= 0:
            return bytes(self._buffer[at : at + length])
        return packs.read_exactly(self._fd, length, offset)

    def seal(self) -> None:
        """Write the footer of a pack that is durable; nothing is appended after it.

        Only now: a footer is believed, so it must never be on disk before the records are.

        Raises:
            OSError: it cannot be written; without it the next one to open the store seals the pack.
        """
        assert not self.dirty
        assert not self._buffer
        if self.records and not self.sealed:
            layout.write_all(self._fd, packs.footer_bytes(self._entries), self.end)
            _sealed()
            os.fdatasync(self._fd)
            self.sealed = True
            self._entries = bytearray()

    def sync(self) -> None:
        """Make everything written durable, and the file's name once. The caller sets `durable_to`.

        Raises:
            OSError: it may or may not be; `cut` afterwards.
        """
        os.fdatasync(self._fd)
        _synced()
        if not self._named:
            layout.sync_directory(self.path.parent)
            # Whoever made that directory may not have come to this yet, or have failed.
            layout.sync_directory(self._home / layout.PACKS)
            self._named = True
            _named()

    def cut(self, length: int) -> list[packs.Item]:
        """Give up everything from offset `length` on; the records lost. Without any, it is removed.

        Best effort, as it follows a failure: what cannot be cut is cut by the one who adopts the
        pack, as far as it is torn.
        """
        self._drop_unfinished()
        self._buffer = bytearray()
        with contextlib.suppress(OSError):
            if self._fd >= 0 and length <= packs.HEADER_BYTES:
                os.unlink(self.path)
            elif self._fd >= 0:
                os.ftruncate(self._fd, length)
        self.written_to = min(self.written_to, length)
        self.end = min(self.end, length)
        lost = []
        while self._uncatalogued and self._uncatalogued[-1].at.offset >= length:
            lost.append(self._uncatalogued.pop())
            del self._entries[-packs.ENTRY_BYTES :]
            self.records -= 1
        return lost

    def items(self) -> Iterator[packs.Item]:
        """Its written records, as they are on disk."""
        if self._fd >= 0:
            yield from packs.scan(self._fd, self.name, packs.HEADER_BYTES)

    def close(self) -> None:
        """Close the file, as it is."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
