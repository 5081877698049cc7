"""The packs of one writer: the open one, full ones on their way to be sealed, and what is in them.

A record's way: into the open pack; with it, when it is full, among the *full* ones; durable by
`sync`; its row into the catalog, its pack sealed. Until its row is in the catalog it has a place.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from crabrt.core import failpoints
from crabrt.core.ids import ObjectId
from crabrt.store.catalog import Catalog
from crabrt.store.failures import unavailable
from crabrt.store.losses import Losses
from crabrt.store.openpack import BUFFER_BYTES, OpenPack, Record
from crabrt.store.packs import HEADER_BYTES, Location

PACK_BYTES = 64 << 20
"""A pack that reached this length is sealed."""
PACK_RECORDS = 65_536
"""So is one with as many records, which bounds every footer and what is kept in memory."""
_UNSYNCED_PACKS = 2
"""As many full packs may wait for a sync; then `append` syncs the oldest itself."""

_rows = failpoints.declare("catalog.pushed", "durable records are in the catalog")


class OwnPacks:
    """All of a writer's packs.

    Concurrency: `lock`, which is the writer's, guards everything and is held by the caller of every
    method that does not say otherwise. `syncing` (taken first) lets one thread at a time sync;
    appends go on while fdatasync runs, as nothing but the file is touched then.

    After a failed write or fsync a pack is given up at its last good point. What is lost with it
    goes to `losses` and is no longer found.

    Args:
        home: the store's directory.
        writer: whose packs these are.
        catalog: gets the rows of what is durable.
        losses: gets the ids of what is lost.
        lock: the writer's.
        rolled: called with the name of a pack that is full, before others may look at it.
        pack_bytes: a pack that reached this length is sealed.

    Attributes:
        bytes_stored: how much was appended so far, frames included.
        places: where the records are that the catalog may not know yet. To be read only, for which
            no lock is needed.
        syncing: held by the thread that syncs.
    """

    def __init__(
        self,
        home: Path,
        writer: str,
        catalog: Catalog,
        losses: Losses,
        *,
        lock: threading.RLock,
        rolled: Callable[[str], None],
        pack_bytes: int,
    ) -> None:
        self.syncing = threading.Lock()
        self.bytes_stored = 0
        self.places: dict[ObjectId, Location] = {}
        self._home = home
        self._writer = writer
        self._catalog = catalog
        self._losses = losses
        self._lock = lock
        self._rolled = rolled
        self._pack_bytes = pack_bytes
        self._count = 0
        self._open = self._next()
        self._full: list[OpenPack] = []

    # -- what is there ---------------------------------------------------------------------------

    @property
    def fresh(self) -> int:
        """How many records are not in the catalog yet."""
        return len(self.places)

    @property
    def open_name(self) -> str:
        """The pack that the next record goes to. Needs no lock."""
        return self._open.name

    def names(self) -> list[str]:
        """Those that are not closed yet."""
        return [pack.name for pack in (*self._full, self._open)]

    def read(self, at: Location) -> bytes | None:
        """A record, perhaps still buffered; None where its pack is closed or another writer's.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        for pack in (self._open, *self._full):
            if pack.name == at.pack:
                try:
                    return pack.read(at.offset, at.length)
                except OSError as error:
                    raise unavailable(error, pack.path, "reading a pack") from error
        return None

    # -- writing ---------------------------------------------------------------------------------

    def append(self, records: Iterable[Record]) -> None:
        """Append to the open pack.

        Raises:
            StoreUnavailable: a record is not stored, and those behind it are not; what was before
                it and not written is lost.
        """
        for record in records:
            pack = self._open
            try:
                at = self.places[record.id] = pack.append(record)
                if pack.buffered >= BUFFER_BYTES:
                    pack.write_out()
                self.bytes_stored += at.length
                self._losses.stored(record.id)
                if pack.end >= self._pack_bytes or pack.records >= PACK_RECORDS:
                    self._roll()
            except OSError as error:
                self._give_up(pack, pack.written_to)
                self._losses.stored(record.id)
                raise unavailable(error, pack.path, "storing an object") from error

    def roll(self) -> None:
        """Count the open pack as full, if anything is in it; it is sealed once it is durable."""
        if self._open.records:
            self._rolled(self._open.name)
            # In one step: a pack that is neither would never be synced, one that is both would
            # go on behind its footer.
            self._full, self._open = [*self._full, self._open], self._next()

    def _roll(self) -> None:
        """Start another pack. Few may wait for a sync."""
        self._open.write_out()
        self.roll()
        if len(self._full) > _UNSYNCED_PACKS:
            self._relieve()

    def _next(self) -> OpenPack:
        self._count += 1
        return OpenPack(self._home, f"{self._writer}{self._count:08x}")

    def write_out(self) -> None:
        """Hand everything to the kernel.

        Raises:
            StoreUnavailable: it cannot be written.
        """
        for pack in (*self._full, self._open):
            try:
                pack.write_out()
            except OSError as error:
                self._give_up(pack, pack.written_to)
                self._losses.tell()
                raise unavailable(error, pack.path, "storing objects") from error

    # -- making durable --------------------------------------------------------------------------

    def sync(self) -> None:
        """Make everything written durable; seal what is full. Under `syncing`, not under `lock`.

        Raises:
            StoreUnavailable: it is not; what was not durable is given up.
        """
        with self._lock:
            packs = (*self._full, self._open)
            dirty = [(pack, pack.written_to) for pack in packs if pack.dirty]
        for pack, length in dirty:
            self._sync_to(pack, length)
        self._retire()

    def _sync_to(self, pack: OpenPack, length: int) -> None:
        """Make a pack durable up to `length`, or give up what was not."""
        try:
            pack.sync()
        except OSError as error:
            with self._lock:
                self._give_up(pack, pack.durable_to)
                self._losses.tell()
            raise unavailable(error, pack.path, "making objects durable") from error
        with self._lock:
            pack.durable_to = max(pack.durable_to, length)

    def _relieve(self) -> None:
        """Sync the oldest full pack, unless a thread is at it."""
        if self.syncing.acquire(blocking=False):
            try:
                oldest = next((pack for pack in self._full if pack.dirty), None)
                if oldest is not None:
                    self._sync_to(oldest, oldest.written_to)
                self._retire()
            finally:
                self.syncing.release()

    def _retire(self) -> None:
        """Seal, catalogue and close the packs that are full and durable. `syncing` is held."""
        with self._lock:
            durable = [pack for pack in self._full if not pack.dirty]
        for pack in durable:
            # What is durable is so without a footer; who adopts the pack will write one.
            with contextlib.suppress(OSError):
                pack.seal()
            with self._lock:
                if pack.records:
                    self._push(pack)
                self._full.remove(pack)
                pack.close()

    def catalogue(self) -> None:
        """Move the open pack's durable rows from memory to the catalog."""
        self._push(self._open)

    def _push(self, pack: OpenPack) -> None:
        items = pack.durable_items()
        end = min(pack.durable_to, pack.end)
        added = self._catalog.add(pack.name, pack.catalogued_to, end, items, sealed=pack.sealed)
        if added is False:
            # It was lost, and is a cache: who cannot fill it now leaves that to the next one.
            with contextlib.suppress(OSError):
                known = [item for item in pack.items() if item.at.offset < end]
                self._catalog.add(pack.name, 0, end, known, sealed=pack.sealed)
        pack.catalogued_to = end
        pack.drop_items(len(items))
        for item in items:
            if self.places.get(item.id) is item.at:
                del self.places[item.id]
        _rows()

    # -- when that fails -------------------------------------------------------------------------

    def _give_up(self, pack: OpenPack, length: int) -> None:
        """Abandon a pack at `length`; what was beyond is forgotten, so that it is stored again."""
        lost = [item for item in pack.cut(length) if self.places.get(item.id) is item.at]
        for item in lost:
            del self.places[item.id]
        self._losses.add(item.id for item in lost)
        if pack is self._open:
            if pack.written_to > HEADER_BYTES:
                self.roll()
            else:
                self._open = self._next()
                pack.close()

    def close(self) -> None:
        """Close the files, as they are."""
        for pack in (*self._full, self._open):
            pack.close()
