"""Repair everything at once: packs and catalog, journals, messages, the list of runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from crabrt.errors import Damaged, DamagedJournal, NotFound, RunBusy, StoreUnavailable
from crabrt.journal import Lease, RunIndex, cut_journal, read_journal, run_dir
from crabrt.journal.inbox import read_inbox
from crabrt.operations import naming
from crabrt.operations.checking import Trouble
from crabrt.operations.roots import run_ids
from crabrt.store.repair import RepairReport, repair


@dataclass(frozen=True)
class Repaired:
    """What a repair did.

    Attributes:
        store: what was done to packs and catalog.
        cut: runs whose damaged journal was cut behind its last whole entry.
        set_aside: damaged messages that were renamed.
        left: what is still damaged, with what would help.
    """

    store: RepairReport
    cut: tuple[str, ...]
    set_aside: tuple[str, ...]
    left: tuple[Trouble, ...]


def repair_everything(home: Path, *, cut_journals: bool = False) -> Repaired:
    """Repair packs and catalog, set damaged messages aside, rebuild the list of runs.

    Args:
        home: the store's directory.
        cut_journals: also give up what lies behind damage in a journal, so that the run can go on
            from there. The bytes are kept.

    Raises:
        CrabError: as ``store.repair.repair``.
    """
    packs = repair(home)
    cut: list[str] = []
    set_aside: list[str] = []
    left: list[Trouble] = []
    for run in run_ids(home):
        directory = run_dir(home, run)
        try:
            set_aside += _set_messages_aside(directory)
            problem = _journal_problem(directory)
            if problem is None:
                continue
            if not cut_journals:
                left.append(Trouble("journal", problem.where or run, problem.message))
                continue
            with Lease.acquire(directory) as lease:
                if cut_journal(directory, lease) is not None:
                    cut.append(run)
        except (RunBusy, NotFound, Damaged) as error:
            left.append(Trouble("journal", error.where or run, error.message))
    with RunIndex.open(home) as index:
        index.rebuild()
    naming.sweep_deleted(home)
    return Repaired(packs, tuple(cut), tuple(set_aside), tuple(left))


def _journal_problem(directory: Path) -> DamagedJournal | None:
    try:
        for _ in read_journal(directory):
            pass
    except DamagedJournal as error:
        return error
    except NotFound:
        return None
    return None


def _set_messages_aside(directory: Path) -> list[str]:
    """Rename messages that cannot be read; where they are now."""
    moved: list[str] = []
    while True:
        try:
            for _ in read_inbox(directory):
                pass
        except DamagedJournal as error:
            moved.append(_set_aside(str(error.where)))
        else:
            return moved


def _set_aside(path: str) -> str:
    aside = f"{path}.damaged"
    try:
        os.rename(path, aside)
    except OSError as error:
        raise StoreUnavailable(f"cannot be renamed: {error.strerror}", where=path) from error
    return aside
