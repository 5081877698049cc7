"""Names and lives of runs: label and pin turns, delete runs, tell which are live."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from crabrt.core.failpoints import declare
from crabrt.core.ids import RunId
from crabrt.core.targets import Target
from crabrt.core.verdicts import Prior
from crabrt.errors import NotFound, RunBusy, StoreUnavailable, UsageError
from crabrt.journal import (
    Lease,
    RunIndex,
    RunRow,
    TurnRow,
    label_turn,
    lease_holder,
    pin_turn,
    run_dir,
)
from crabrt.journal import unlabel as unlabel_turn
from crabrt.operations.targets import resolve_turn
from crabrt.process.spool import Spool

_TRASH = "trash"
_RENAMED = declare("rm.renamed", "the run is gone from the list; its files wait to be deleted")


def label(
    home: Path, index: RunIndex, target: Target, name: str, *, dry_run: bool = False
) -> tuple[RunRow, TurnRow]:
    """Name the turn (or inner point) `target`; the label moves there if the run has it elsewhere.

    Returns:
        The run and the turn, as they were before.

    Raises:
        NotFound, Ambiguous: `target` does not exist.
        UsageError: the label is malformed.
        StoreUnavailable: it cannot be written.
    """
    run, turn, inner = resolve_turn(index, target)
    if not dry_run:
        label_turn(run_dir(home, RunId(run.run)), name, turn.turn, inner)
    return run, turn


def unlabel(
    home: Path, index: RunIndex, target: Target, name: str, *, dry_run: bool = False
) -> RunRow:
    """Take a label of a run away; the run as it was before.

    Raises:
        NotFound: no such run, or it has no such label.
        StoreUnavailable: it cannot be written.
    """
    run = index.find(target.run)
    if name not in run.labels:
        known = ", ".join(sorted(run.labels)) or "none"
        raise NotFound(f"no label {name!r}", where=run.run, hint=f"its labels: {known}")
    if not dry_run:
        unlabel_turn(run_dir(home, RunId(run.run)), name)
    return run


def pin(
    home: Path, index: RunIndex, target: Target, *, pinned: bool, dry_run: bool = False
) -> tuple[RunRow, TurnRow]:
    """Keep a turn from retention, or no longer.

    Returns:
        The run and the turn, as they were before.

    Raises:
        NotFound, Ambiguous: `target` does not exist.
        UsageError: the turn's files are gone already.
        StoreUnavailable: it cannot be written.
    """
    run, turn, _ = resolve_turn(index, target)
    if pinned and turn.thinned_ns:
        raise UsageError(
            "the files of this turn were given up already", where=f"{run.run}@{turn.turn}"
        )
    if not dry_run:
        pin_turn(run_dir(home, RunId(run.run)), turn.turn, pinned=pinned)
    return run, turn


def is_live(home: Path, run: str) -> bool:
    """Whether a process (maybe this one) writes the run now.

    Raises:
        StoreUnavailable: its lease cannot be read.
    """
    return lease_holder(run_dir(home, RunId(run))) is not None


def remove_run(home: Path, run: str) -> None:
    """Delete a run: its journal goes now, what only it referred to with the next gc.

    Runs that were forked from it have journals of their own and keep working.

    Raises:
        RunBusy: it is live.
        NotFound: there is no such run.
        StoreUnavailable: it cannot be deleted.
    """
    directory = run_dir(home, RunId(run))
    if not directory.is_dir():
        raise NotFound("there is no such run", where=run)
    trash = home / _TRASH
    gone = trash / f"{run}-{os.urandom(4).hex()}"
    with Lease.acquire(directory):
        try:
            # the lease's file moves along: whoever waits for it sees that its place is empty
            os.makedirs(trash, 0o700, exist_ok=True)
            os.rename(directory, gone)
            _sync_directory(directory.parent)
        except OSError as error:
            raise _unavailable(directory, error) from error
        _RENAMED()
        Spool(home, run).clear()  # images of a killed capture
    sweep_deleted(home)


def sweep_deleted(home: Path) -> None:
    """Delete what deletions left behind when they were killed.

    Raises:
        StoreUnavailable: it cannot be deleted.
    """
    trash = home / _TRASH
    try:
        for name in os.listdir(trash):
            shutil.rmtree(trash / name)
    except FileNotFoundError:
        return  # nothing was ever deleted, or another sweep is at it
    except OSError as error:
        raise _unavailable(trash, error) from error


def effects_needed_by_family(index: RunIndex, run: RunRow) -> list[str]:
    """External effects of `run` that a relative could be about to repeat if the run were forgotten.

    A fork looks up by family what already happened outside; only the run that made a call after
    the fork has it on record.
    """
    relatives = [
        other for other in index.runs() if other.family == run.family and other.run != run.run
    ]
    if not relatives:
        return []
    oldest = min(relative.view.forked_at or 0 for relative in relatives)
    return [
        f"{run.run}@{turn.turn}: {tool.name}"
        for turn in index.external_turns(run.run, oldest)
        for tool in turn.tools
        if tool.prior is Prior.EXTERNAL
    ]


def refuse_if_live(home: Path, run: RunRow, doing: str) -> None:
    """Refuse to act on a run that another process is writing.

    Raises:
        RunBusy: it is live, and not in this process.
    """
    holder = lease_holder(run_dir(home, RunId(run.run)))
    if holder is not None and holder.pid != os.getpid():
        raise RunBusy(
            f"process {holder.pid} is running it",
            where=run.run,
            hint=f"wait for it to end, or stop it, before you {doing} it",
        )


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unavailable(path: Path, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(f"cannot be deleted: {error.strerror}", where=str(path))
