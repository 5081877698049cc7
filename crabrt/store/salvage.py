"""Packs whose writer died, and packs that are damaged: keep every record that is right.

A tear is where a writer died or power failed: nothing durable is behind it. It is cut. Where intact
records lie behind a broken one, they are copied to a new pack before the old one goes.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from crabrt.core import failpoints
from crabrt.core.ids import ObjectId
from crabrt.errors import DamagedObject
from crabrt.store import layout, locks, packs, records
from crabrt.store.failures import unavailable
from crabrt.store.index import Index, lock_path, writer_of
from crabrt.store.packs import Item, NoFooter

_cut = failpoints.declare(
    "adopt.cut", "the torn tail of a dead writer's pack is cut, it is not sealed"
)
_sealed = failpoints.declare("adopt.sealed", "a dead writer's pack is sealed and durable")
_copied = failpoints.declare(
    "salvage.copied",
    "the intact records of a damaged pack are durable in a new one, the old one is there",
)


class Salvaged(msgspec.Struct, frozen=True):
    """What came out of a damaged pack: the new pack (None: nothing), how many records."""

    pack: str | None
    records: int


def adopt_orphans(index: Index) -> list[str]:
    """Seal and index the packs of dead writers; the names of those that were changed.

    Safe beside live writers, and beside others who adopt: the second one does nothing.

    Raises:
        StoreUnavailable: a pack cannot be read or written.
    """
    directory = index.home / layout.WRITERS
    try:
        guard = locks.try_lock(directory / "adopt.lock")
    except OSError as error:
        raise unavailable(error, directory, "taking a lock") from error
    if guard is None:
        return []
    try:
        index.refresh(tails=False)
        known = index.catalog.packs()
        unsealed = [
            n for n in layout.list_packs(index.home) if n not in known or not known[n].sealed
        ]
        adopted = [name for name in unsealed if _adopt(index, name)]
        _remove_dead_locks(directory)
        if adopted:
            index.refresh(tails=False)
    except OSError as error:
        raise unavailable(error, index.home, "sealing the packs of a dead writer") from error
    finally:
        guard.release(remove=False)
    return adopted


def _adopt(index: Index, name: str) -> bool:
    if locks.content_of(lock_path(index.home, writer_of(name))) is not None:
        return False
    path = layout.pack_path(index.home, name)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return _seal_torn(index.home, fd, name)
    finally:
        os.close(fd)
        index.drop_file(name)


def _seal_torn(home: Path, fd: int, name: str) -> bool:
    """Seal a pack that has no footer, or a torn one; whether it had none."""
    path = layout.pack_path(home, name)
    with contextlib.suppress(NoFooter):
        packs.read_footer(fd)
        return False
    items: list[Item] = []
    if packs.header_problem(fd, name) is None:
        items.extend(packs.scan(fd, name, packs.HEADER_BYTES))
    end = items[-1].at.offset + items[-1].at.length if items else packs.HEADER_BYTES
    if next(packs.salvage(fd, name, end), None) is not None:
        rewrite(home, fd, name)
        os.unlink(path)
    elif not items:
        os.unlink(path)
    else:
        os.ftruncate(fd, end)
        os.fdatasync(fd)  # a footer must not be on disk before the records are
        _cut()
        layout.write_all(fd, packs.footer_bytes(b"".join(map(packs.entry_bytes, items))), end)
        os.fdatasync(fd)
    layout.sync_directory(path.parent)
    _sealed()
    return True


def rewrite(home: Path, fd: int, name: str) -> Salvaged:
    """Copy every record of a pack that is right into a new, sealed, durable pack.

    Raises:
        OSError: it cannot be read or written.
    """
    new = os.urandom(layout.WRITER_CHARS // 2).hex() + f"{1:08x}"
    path = layout.pack_path(home, new)
    layout.make_directory(path.parent)
    temporary = path.with_suffix(".tmp")
    out = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        entries = _copy_records(fd, name, out, new)
        if not entries:
            os.unlink(temporary)
            return Salvaged(None, 0)
        os.fdatasync(out)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    finally:
        os.close(out)
    layout.sync_directory(path.parent)
    layout.sync_directory(home / layout.PACKS)
    _copied()
    return Salvaged(new, len(entries) // packs.ENTRY_BYTES)


def _copy_records(fd: int, name: str, out: int, new: str) -> bytearray:
    seen: set[ObjectId] = set()
    entries = bytearray()
    layout.write_all(out, packs.header_bytes(new), 0)
    end = packs.HEADER_BYTES
    for item in packs.salvage(fd, name, 0):
        record = packs.read_exactly(fd, item.at.length, item.at.offset)
        if item.id in seen or record_problem(record, item):
            continue
        seen.add(item.id)
        layout.write_all(out, record, end)
        at = msgspec.structs.replace(item.at, pack=new, offset=end)
        entries += packs.entry_bytes(Item(item.id, at))
        end += len(record)
    layout.write_all(out, packs.footer_bytes(entries), end)
    return entries


def record_problem(record: bytes, item: Item) -> DamagedObject | None:
    """What is wrong with a record's bytes, or None."""
    try:
        records.unpack(record, f"{item.at.pack}:{item.at.offset}", item.id, None)
    except DamagedObject as error:
        return error
    return None


def _remove_dead_locks(directory: Path) -> None:
    for entry in os.listdir(directory):
        path = directory / entry
        is_writer = entry.endswith(".lock") and len(entry) == layout.WRITER_CHARS + len(".lock")
        if is_writer and locks.content_of(path) is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
