"""Make a damaged store usable again: rebuild what is derived, set aside what is broken.

Nothing is deleted: a damaged pack stays under ``damaged/`` for who knows better.

Safe beside running writers: packs that they have open are left alone.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import msgspec

from crabrt.core import failpoints
from crabrt.errors import Damaged, FormatTooNew, NotFound, StoreBusy
from crabrt.store import layout, locks, packs, salvage
from crabrt.store.failures import unavailable
from crabrt.store.format import read_format, write_format
from crabrt.store.index import Index, lock_path, writer_of
from crabrt.store.packs import NoFooter

_set_aside = failpoints.declare(
    "repair.aside", "a damaged pack's good records are durable in a new one"
)


class RepairReport(msgspec.Struct, frozen=True):
    """What a `repair` did.

    Attributes:
        format_rewritten: ``format.json`` was missing or unreadable.
        packs_sealed: packs of dead writers that were finished.
        packs_set_aside: paths of damaged packs, now under ``damaged/``.
        objects_salvaged: intact objects copied out of them.
        objects_lost: records that their indexes listed and that are not intact (as far as an index
            was left to say so).
        packs, objects: in the rebuilt catalog.
        directories_closed: directories that others could look into.
    """

    format_rewritten: bool = False
    packs_sealed: int = 0
    packs_set_aside: tuple[str, ...] = ()
    objects_salvaged: int = 0
    objects_lost: int = 0
    packs: int = 0
    objects: int = 0
    directories_closed: int = 0


def repair(home: Path) -> RepairReport:
    """Repair the store at `home`; reads everything in it.

    Raises:
        NotFound: there is nothing like a store.
        FormatTooNew: a newer crabrt wrote it; nothing was touched.
        StoreBusy: gc, or another repair, is running.
        StoreUnavailable: it cannot be read or written.
    """
    home = Path(home).absolute()
    if not (home / layout.PACKS).is_dir() and not (home / layout.FORMAT).exists():
        raise NotFound("there is no store here", where=str(home), hint="set CRAB_HOME")
    _refuse_newer_format(home)
    guard: locks.HeldLock | None = None
    try:
        for name in layout.DIRECTORIES:
            layout.make_directory(home / name)
        guard = locks.try_lock(home / layout.GC / "lock")
        if guard is None:
            raise StoreBusy("gc or another repair is running", where=str(home), hint="wait for it")
        closed = _close_to_others(home)
        return msgspec.structs.replace(_repair(home), directories_closed=closed)
    except OSError as error:
        raise unavailable(error, home, "repairing the store") from error
    finally:
        if guard is not None:
            guard.release(remove=False)


def _close_to_others(home: Path) -> int:
    closed = 0
    for path in (home, *(home / name for name in layout.DIRECTORIES)):
        if os.stat(path).st_mode & 0o077:
            os.chmod(path, 0o700)
            closed += 1
    return closed


def _refuse_newer_format(home: Path) -> None:
    """Nothing of a newer store is touched, not even its locks; other damage is to be mended."""
    try:
        read_format(home)
    except FormatTooNew:
        raise
    except (Damaged, NotFound):
        return


def _repair(home: Path) -> RepairReport:
    rewritten = _repair_format(home)
    index = Index(home)
    try:
        sealed = salvage.adopt_orphans(index)
        aside: list[str] = []
        salvaged = lost = 0
        for name in sorted(layout.list_packs(home)):
            if locks.content_of(lock_path(home, writer_of(name))) is not None:
                continue
            outcome = _repair_pack(home, name)
            if outcome is not None:
                path, kept, gone = outcome
                aside.append(path)
                salvaged += kept
                lost += gone
        index.catalog.reset()
        index.refresh()
        known = index.catalog.packs()
        objects = sum(len(index.catalog.items_of(name)) for name in known)
    finally:
        index.close()
    return RepairReport(
        format_rewritten=rewritten,
        packs_sealed=len(sealed),
        packs_set_aside=tuple(aside),
        objects_salvaged=salvaged,
        objects_lost=lost,
        packs=len(known),
        objects=objects,
    )


def _repair_format(home: Path) -> bool:
    try:
        read_format(home)
    except FormatTooNew:
        raise
    except (Damaged, NotFound):
        _refuse_newer_packs(home)
        with contextlib.suppress(FileNotFoundError):
            os.rename(home / layout.FORMAT, _aside_path(home, layout.FORMAT))
        write_format(home, replace=True)
        return True
    return False


def _refuse_newer_packs(home: Path) -> None:
    """Without ``format.json``, the packs' own version tells whether we may touch the store."""
    for name in layout.list_packs(home):
        version = packs.header_version(layout.pack_path(home, name))
        if version is not None and version > packs.VERSION:
            raise FormatTooNew(
                f"the packs have version {version}, this crabrt knows {packs.VERSION}",
                where=str(home),
                hint="upgrade crabrt (pip install -U crabrt)",
            )


def _repair_pack(home: Path, name: str) -> tuple[str, int, int] | None:
    """Set a pack aside if anything is wrong with it: where it went, records kept and lost."""
    path = layout.pack_path(home, name)
    try:
        file = packs.Descriptor(path)
    except FileNotFoundError:
        return None
    broken = packs.header_problem(file.fd, name) is not None
    listed = good = 0
    try:
        for item in packs.read_footer(file.fd).items(name):
            record = packs.read_exactly(file.fd, item.at.length, item.at.offset)
            listed += 1
            good += salvage.record_problem(record, item) is None
    except NoFooter:
        broken = True
    if not broken and listed == good:
        return None
    kept = salvage.rewrite(home, file.fd, name)
    _set_aside()
    aside = _aside_path(home, path.name)
    os.rename(path, aside)
    layout.sync_directory(aside.parent)
    layout.sync_directory(path.parent)
    return str(aside), kept.records, max(0, listed - kept.records)


def _aside_path(home: Path, name: str) -> Path:
    layout.make_directory(home / layout.DAMAGED)
    return home / layout.DAMAGED / f"{name}.{time.time_ns()}"
