"""Finding an object: catalog first; on a miss, what the packs themselves say.

What the catalog cannot hold yet is kept in memory: the records of packs that live writers have
open. Those are readable but perhaps not durable, so they are never a reason not to store something
again.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path

from crabrt.core.ids import ObjectId
from crabrt.store import layout, packs
from crabrt.store.catalog import Catalog, PackState
from crabrt.store.failures import unavailable
from crabrt.store.packs import Descriptor, Footer, Item, Location, NoFooter

_OPEN_FILES = 32


def writer_of(pack: str) -> str:
    """The id of the writer that made a pack."""
    return pack[: layout.WRITER_CHARS]


def lock_path(home: Path, writer: str) -> Path:
    """The lock file of a writer."""
    return home / layout.WRITERS / f"{writer}.lock"


class _Tail:
    """The records, from `start` on, of a pack that another process still writes, as far as seen."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.scanned_to = max(start, packs.HEADER_BYTES)
        self.items: dict[ObjectId, Location] = {}


class Index:
    """Where objects are, for all threads of a process."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.catalog = Catalog(home)
        self._files: OrderedDict[str, Descriptor] = OrderedDict()
        self._tails: dict[str, _Tail] = {}
        self._lock = threading.RLock()
        self._verified = False

    def find(self, object_id: ObjectId) -> list[Location]:
        """Every place known so far, without looking at packs."""
        found = self.catalog.locate(object_id)
        with self._lock:
            tails = [
                tail.items[object_id] for tail in self._tails.values() if object_id in tail.items
            ]
        return found + tails

    def refresh(self, *, tails: bool = True) -> None:
        """Learn of every record that others wrote since; without `tails`, of sealed packs only.

        Raises:
            StoreUnavailable: the packs cannot be listed or read.
        """
        with self._lock:
            self.catalog.follow()
            known = self.catalog.packs()
            there = set(layout.list_packs(self.home))
            for name in sorted(there):
                state = known.get(name, PackState(0, sealed=False))
                if not state.sealed:
                    self._learn(name, state, tails=tails)
            self.catalog.forget(known.keys() - there)
            for name in self._tails.keys() - there:
                del self._tails[name]
                self._files.pop(name, None)

    def distrust(self) -> bool:
        """Throw the catalog away and read every index again; False when that was done before.

        For the moment when the catalog points nowhere, or a referenced object is not in it.
        """
        with self._lock:
            if self._verified:
                return False
            self._verified = True
            self._tails.clear()
            self._files.clear()
            self.catalog.reset()
            self.refresh()
            return True

    def _learn(self, name: str, state: PackState, *, tails: bool) -> None:
        path = layout.pack_path(self.home, name)
        try:
            file = self.file(name)
            if packs.header_problem(file.fd, name) is not None:
                return
            try:
                footer = packs.read_footer(file.fd)
            except NoFooter:
                if tails:
                    self._follow_tail(name, file, state)
                return
            items = [item for item in footer.items(name) if item.at.offset >= state.indexed_to]
            # A footer is written after its records are durable, so they may have rows.
            if self.catalog.add(name, state.indexed_to, footer.start, items, sealed=True):
                self._tails.pop(name, None)
                return
            self._tails[name] = tail = _Tail(0)
            tail.items.update((item.id, item.at) for item in footer.items(name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise unavailable(error, path, "reading a pack") from error

    def _follow_tail(self, name: str, file: Descriptor, state: PackState) -> None:
        tail = self._tails.get(name)
        if tail is None or tail.start > state.indexed_to:  # the catalog was lost since
            tail = self._tails[name] = _Tail(state.indexed_to)
        size = os.fstat(file.fd).st_size
        if size <= tail.scanned_to:
            return
        for item in packs.scan(file.fd, name, tail.scanned_to):
            tail.items[item.id] = item.at
            tail.scanned_to = item.at.offset + item.at.length

    def footer_of(self, name: str) -> Footer | None:
        """What a sealed pack itself says that it holds; None where it does not say.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        try:
            file = self.file(name)
            if packs.header_problem(file.fd, name) is None:
                return packs.read_footer(file.fd)
        except (FileNotFoundError, NoFooter):
            return None
        except OSError as error:
            raise unavailable(error, layout.pack_path(self.home, name), "reading a pack") from error
        return None

    def durable_items(self, name: str) -> list[Item]:
        """The records of a pack, sealed or not, made durable first if need be.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        footer = self.footer_of(name)
        if footer is not None:
            return list(footer.items(name))
        try:
            file = self.file(name)
            items = list(packs.scan(file.fd, name, packs.HEADER_BYTES))
            os.fdatasync(file.fd)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise unavailable(error, layout.pack_path(self.home, name), "reading a pack") from error
        return items

    def file(self, name: str) -> Descriptor:
        """An open pack; its descriptor lives as long as the caller refers to it.

        Raises:
            OSError: it cannot be opened.
        """
        with self._lock:
            file = self._files.get(name)
            if file is not None:
                self._files.move_to_end(name)
                return file
        file = Descriptor(layout.pack_path(self.home, name))
        with self._lock:
            self._files[name] = file
            while len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)
        return file

    def drop_file(self, name: str) -> None:
        """Forget an open pack: it was removed or replaced."""
        with self._lock:
            self._files.pop(name, None)
            self._tails.pop(name, None)

    def close(self) -> None:
        """Close everything."""
        with self._lock:
            self._files.clear()
            self._tails.clear()
            self.catalog.close()
