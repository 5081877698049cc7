"""Contents of files that were read before the capture which needs them.

Why that is safe. The index trusts a file without reading it while its stamp is equal to one that
was *settled* when the file was read (``stamps``, docs/internals/index.md). An early reading is kept
under the same rule, and a stricter one: nobody had the file open for writing when it began, so no
mapping, and no write that was still under way, could reach the file without moving its times later.
Whoever finds the same stamp again finds the same bytes. Only the bytes: names, attributes and times
are taken at the capture.

What was put early is garbage until an entry names it, and gc may take it. So its ids are put again
when it is used (`StoreWriter.put_again`): if any is gone, the file is read again.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from crabrt.core.content import Content
from crabrt.core.ids import ObjectId
from crabrt.store import StoreWriter
from crabrt.workspace.stamps import CLOCK_JITTER_NS, clock_offset_ns, stamp

VAIN_BYTES: Final = 512 << 20
"""So much is read in vain, in all of a run. What a capture then uses does not count."""

KEPT_MOST: Final = 20_000
"""As many readings are kept; about 300 bytes each."""

Inode = tuple[int, int]
"""Device and inode."""


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """What was read of one file.

    Attributes:
        stamp: before and after it was read; settled.
        content: its bytes.
        ids: of all objects that `content` needs.
        offset_ns: see `stamps.clock_offset_ns`: a clock set back may give an old stamp again.
    """

    stamp: bytes
    content: Content
    ids: tuple[ObjectId, ...]
    offset_ns: int


class EarlyReads:
    """Readings to be used by the next capture. Owned by the thread that owns the `Tracker`.

    Args:
        writer: where the contents were put.

    Attributes:
        used: how many readings captures used so far.
    """

    def __init__(self, writer: StoreWriter) -> None:
        self.used = 0
        self._writer = writer
        self._readings: OrderedDict[Inode, _Reading] = OrderedDict()
        self._room = VAIN_BYTES

    @property
    def room_bytes(self) -> int:
        """How much more may be read early."""
        return self._room

    def spend(self, size_bytes: int) -> None:
        """So much was read, whether it is kept or not."""
        self._room -= size_bytes

    def keep(self, status: os.stat_result, content: Content, ids: tuple[ObjectId, ...]) -> None:
        """Keep what was read of a file.

        Args:
            status: the same before and after, with a stamp that was settled before; and nobody had
                the file open for writing in between.
            content: its bytes.
            ids: of everything that was put for it.
        """
        key = (status.st_dev, status.st_ino)
        self._readings[key] = _Reading(stamp(status), content, ids, clock_offset_ns())
        self._readings.move_to_end(key)
        if len(self._readings) > KEPT_MOST:
            self._readings.popitem(last=False)

    def has(self, status: os.stat_result) -> bool:
        """Whether the file has been read as it is."""
        known = self._readings.get((status.st_dev, status.st_ino))
        return known is not None and known.stamp == stamp(status)

    def take(self, status: os.stat_result) -> Content | None:
        """The content of a file, if it was read as it is and is still stored; it is put then.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        if not self._readings:
            return None
        known = self._readings.get((status.st_dev, status.st_ino))
        if known is None or known.stamp != stamp(status):
            return None
        if known.offset_ns - clock_offset_ns() > CLOCK_JITTER_NS:
            return None
        if not self._writer.put_again(known.ids):
            return None
        del self._readings[status.st_dev, status.st_ino]
        self._room += known.content.size
        self.used += 1
        return known.content

    def clear(self) -> None:
        """The capture is over."""
        self._readings.clear()
