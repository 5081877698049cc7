"""Finding an object: catalog first; on a miss, what the packs themselves say.

What the catalog cannot hold yet is kept in memory: the records of packs that live writers have
open. Those are readable but perhaps not durable, so they are never a reason not to store something again.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from pathlib import Path

from crabrt.core.ids import ObjectId
from crabrt.store import layout, locks, packs
from crabrt.store.catalog import Catalog, PackState
from crabrt.store.failures import unavailable
from crabrt.store.packs import Descriptor, Location, NoFooter

_OPEN_FILES = 32


def writer_of(pack: str) -> str:
    """The id of the writer that made a pack."""
    return pack[: layout.WRITER_CHARS]


def lock_path(home: Path, writer: str) -> Path:
    """The lock file of a writer."""
    return home / layout.WRITERS / f"{writer}.lock"


class _Tail:
    """The records of a pack that is still written by another process, as far as seen."""

    def __init__(self) -> None:
        self.scanned_to = packs.HEADER_BYTES
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

    def refresh(self) -> None:
        """Learn of every record that others wrote since.

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
                    self._learn(name, state)
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

    def _learn(self, name: str, state: PackState) -> None:
        path = layout.pack_path(self.home, name)
        try:
            file = self.file(name)
            if packs.header_problem(file.fd, name) is not None:
                return
            try:
                footer = packs.read_footer(file.fd)
            except NoFooter:
                self._follow_tail(name, file, state)
                return
            items = [item for item in footer.items(name) if item.at.offset >= state.indexed_to]
            with contextlib.suppress(OSError):
                os.fdatasync(file.fd)  # rows stand for durable records, whoever wrote them
                if self.catalog.add(name, state.indexed_to, footer.start, items, sealed=True):
                    self._tails.pop(name, None)
                    return
            self._tails[name] = tail = _Tail()
            tail.items.update((item.id, item.at) for item in footer.items(name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise unavailable(error, path, "reading a pack") from error

    def _follow_tail(self, name: str, file: Descriptor, state: PackState) -> None:
        tail = self._tails.setdefault(name, _Tail())
        tail.scanned_to = max(tail.scanned_to, state.indexed_to)
        size = os.fstat(file.fd).st_size
        if size <= tail.scanned_to:
            return
        for item in packs.scan(file.fd, name, tail.scanned_to):
            tail.items[item.id] = item.at
            tail.scanned_to = item.at.offset + item.at.length

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


def adopt_orphans(index: Index) -> list[str]:
    """Seal the packs of dead writers and index them; their names.

    A torn tail is cut at the last whole record; a pack without any record is removed. Two that
    try at once do not harm each other: the second does nothing.

    Raises:
        StoreUnavailable: a pack cannot be read or written.
    """
    home = index.home
    try:
        guard = locks.try_lock(home / layout.WRITERS / "adopt.lock")
    except OSError as error:
        raise unavailable(error, home / layout.WRITERS, "taking a lock") from error
    if guard is None:
        return []
    adopted: list[str] = []
    try:
        index.refresh()
        for name, state in index.catalog.packs().items():
            if not state.sealed and _adopt(index, name):
                adopted.append(name)
        known = index.catalog.packs()
        for name in list(layout.list_packs(home)):
            if name not in known and _adopt(index, name):
                adopted.append(name)
        _remove_dead_locks(home)
        if adopted:
            index.refresh()
    except OSError as error:
        raise unavailable(error, home, "sealing the packs of a dead writer") from error
    finally:
        guard.release(remove=False)
    return adopted


def _adopt(index: Index, name: str) -> bool:
    home = index.home
    if locks.state_of(lock_path(home, writer_of(name))) is not None:
        return False
    path = layout.pack_path(home, name)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return seal_torn(fd, name, path)
    finally:
        os.close(fd)
        index.drop_file(name)


def seal_torn(fd: int, name: str, path: Path) -> bool:
    """Cut the torn tail of a pack that nobody writes and seal it; whether that changed it.

    A pack with a damaged header or a damaged footer is left alone: that is damage, not a tear.

    Raises:
        OSError: it cannot be read or written.
    """
    size = os.fstat(fd).st_size
    if size >= packs.HEADER_BYTES and packs.header_problem(fd, name) is not None:
        return False
    try:
        packs.read_footer(fd)
    except NoFooter as error:
        if error.damaged:
            return False
    else:
        return False
    items = list(packs.scan(fd, name, packs.HEADER_BYTES))
    if not items:
        os.unlink(path)
        return True
    end = items[-1].at.offset + items[-1].at.length
    os.ftruncate(fd, end)
    layout.write_all(fd, packs.footer_bytes(b"".join(map(packs.entry_bytes, items))), end)
    os.fdatasync(fd)
    layout.sync_directory(path.parent)
    return True


def _remove_dead_locks(home: Path) -> None:
    for entry in os.listdir(home / layout.WRITERS):
        path = home / layout.WRITERS / entry
        if entry.endswith(".lock") and len(entry) == layout.WRITER_CHARS + len(".lock"):
            if locks.state_of(path) is None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
