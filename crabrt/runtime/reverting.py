"""A resume puts the workspace and its processes back to C; and whose work is undone by that."""

from __future__ import annotations

from pathlib import Path

from crabrt.core.ids import ObjectId, RunId
from crabrt.errors import CrabError
from crabrt.journal import RunIndex, read_journal, run_dir
from crabrt.operations.restoring import last_known
from crabrt.process.revivals import Revival
from crabrt.process.sighting import Sighting
from crabrt.runtime import company
from crabrt.runtime.newest import newest_state
from crabrt.runtime.recovery import State, Stop, find_stop
from crabrt.runtime.session import Session
from crabrt.workspace import RestoreReport, Workspace, restore
from crabrt.workspace.restoring import Beside


def put_back(
    session: Session, stop: Stop, state: State, alive: Sighting
) -> tuple[RestoreReport, Revival]:
    """Restore C, or the newer state of a child run that was going on."""
    engine = session.engine
    newest = newest_state(engine.store, engine.config.home, stop, engine.writer)
    root = newest.root if newest is not None else state.root
    processes = newest.processes if newest is not None else state.processes
    base = _last_known(engine.workspace, engine.config.home) or root

    def files(beside: Beside | None) -> RestoreReport:
        return restore(
            engine.workspace, engine.writer, root, base=base, force=True,
            label=f"resume {session.id}", tracker=engine.tracker, beside=beside,
        )  # fmt: skip

    done = engine.submit(
        lambda: company.put_back(
            session, processes, files, lambda: alive, elsewhere=_elsewhere(stop, state)
        )
    ).result()
    session.expected = root
    if done[1].started:  # what they write as they begin is their work, and not the loop's

        def now() -> ObjectId:
            return engine.tracker.capture(engine.tracker.scan(), engine.writer).root

        session.expected = engine.submit(now).result()
    session.moment_ns = newest.moment_ns if newest is not None else None
    return done


def _elsewhere(stop: Stop, state: State) -> bool:
    """Whether `state` was a state of another directory: that of the run this one is a fork of."""
    started, forked = stop.started, stop.forked
    if started is None or forked is None or started.workspace_path == forked.workspace_path:
        return False
    return state.position <= stop.forked_seq


def _last_known(workspace: Workspace, home: Path) -> ObjectId | None:
    """The state that the owner of the workspace last knew: a checkpoint or the end of a restore."""
    with RunIndex.open(home) as index:
        index.refresh()
        return last_known(index, workspace)


def may_be_own(stop: Stop, position: int, home: Path) -> bool:
    """Whether what is in no checkpoint may be the work of this run's tools behind `position`.

    It cannot be told from what somebody did since. Of a fresh fork, it may be its parent's work.
    """
    if stop.seq == stop.forked_seq and stop.forked is not None:
        try:
            parent = find_stop(read_journal(run_dir(home, RunId(stop.forked.lineage.parent or ""))))
        except CrabError:  # it cannot be told
            return True
        known = parent.checkpoint.position if parent.checkpoint is not None else 0
        return may_be_own(parent, known, home)
    return bool(stop.open_tools) or stop.gap is not None or stop.last_tool_seq > position
