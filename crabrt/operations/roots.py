"""Everything in a store that something still refers to: what a collection must keep.

Three places refer to objects: journals (checkpoints that were not thinned, captures and rollbacks,
long arguments, results and messages), the logs of restores (undo points, an interrupted restore),
and each workspace's index (the tree it describes). A place that cannot be read stops the
collection: what it needs is unknown, and unknown means kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from crabrt.core.ids import ObjectKind, RunId
from crabrt.errors import NotFound, StoreUnavailable
from crabrt.journal import references, run_dir
from crabrt.journal.restores import RestoreLog
from crabrt.store import ObjectRef, Store, gc
from crabrt.workspace.index_file import IndexFile, root_of

UNDO_KEEP_DAYS = 14.0


def collect_garbage(
    store: Store, *, undo_keep_days: float = UNDO_KEEP_DAYS, dry_run: bool = False
) -> gc.GcReport:
    """Reclaim what nothing refers to. Safe beside running agents (see ``store.gc``).

    Raises:
        DamagedJournal, DamagedObject, FormatTooNew: what must be kept cannot be told; nothing was
        dropped.
        StoreUnavailable: the store cannot be read or written.
        StoreBusy: another collection is running.
    """
    return gc.collect(store, lambda: referenced(store, undo_keep_days), dry_run=dry_run)


def referenced(store: Store, undo_keep_days: float = UNDO_KEEP_DAYS) -> Iterator[ObjectRef]:
    """What journals, restore logs and indexes refer to; ids may come more than once.

    Raises:
        DamagedJournal, FormatTooNew: one of them is not what was written.
        StoreUnavailable: one of them cannot be read.
    """
    for run in run_ids(store.home):
        yield from run_references(store.home, run)
    for state_dir in workspace_dirs(store.home):
        for root in RestoreLog(state_dir).roots(undo_keep_days):
            yield ObjectRef(root, ObjectKind.ROOT)
        index = IndexFile(state_dir).load()
        if index is not None and store.contains(root_of(index.header)):
            yield ObjectRef(root_of(index.header), ObjectKind.ROOT)


def run_references(home: Path, run: RunId) -> Iterator[ObjectRef]:
    """What one run's journal refers to; nothing for a run that has no entry yet, or was deleted.

    Raises:
        DamagedJournal, FormatTooNew, StoreUnavailable: as `referenced`.
    """
    directory = run_dir(home, run)
    try:
        for object_id, kind in references(directory):
            yield ObjectRef(object_id, kind)
    except NotFound:
        return


def run_ids(home: Path) -> list[RunId]:
    """The runs that have a directory, in name order.

    Raises:
        StoreUnavailable: they cannot be listed.
    """
    return [RunId(name) for name in _directories(home / "runs")]


def workspace_dirs(home: Path) -> list[Path]:
    """The state directories of the workspaces the store knows.

    Raises:
        StoreUnavailable: they cannot be listed.
    """
    base = home / "workspaces"
    return [base / name for name in _directories(base) if name != "claims"]


def _directories(base: Path) -> list[str]:
    try:
        with os.scandir(base) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreUnavailable(
            f"cannot be listed: {error.strerror}", where=str(base), hint="see `crab doctor`"
        ) from error
