"""The shortcut of a resume: the disk already is the state; it is checkpointed, and gone on from.

That is so if the boot is the same, no tool was running, and nobody else has touched the workspace's
history since.
"""

from __future__ import annotations

from pathlib import Path

from crabrt.core.clock import boot_id
from crabrt.core.processes import ProcessState
from crabrt.errors import Unprotected
from crabrt.journal import RunIndex, RunRow
from crabrt.journal.restores import RestoreLog
from crabrt.operations.restoring import runs_here
from crabrt.runtime import checkpoints
from crabrt.runtime.engine import Fate, Job
from crabrt.runtime.recovery import State, Stop
from crabrt.runtime.session import Session
from crabrt.workspace import Workspace


def disk_is_the_state(stop: Stop, workspace: Workspace, home: Path) -> bool:
    """Whether a run that stopped so goes on from the workspace as it is (the shortcut).

    Raises:
        DamagedJournal: the workspace's log of restores is broken.
        StoreUnavailable: something cannot be read.
    """
    if stop.open_tools or stop.gap is not None or stop.boot != boot_id() or boot_id() == "unknown":
        return False
    if stop.seq == stop.forked_seq:  # never taken up: the disk is as its parent left it
        return False
    restored = RestoreLog(workspace.state_dir).last_end_root()
    if restored is not None and restored[1] > stop.wall_ns:
        return False
    newest = _newest_run(home, workspace)
    return newest is None or newest.run == stop.run or newest.view.root_ns <= stop.wall_ns


def _newest_run(home: Path, workspace: Workspace) -> RunRow | None:
    """The run whose checkpoint of this workspace is the newest."""
    with RunIndex.open(home) as index:
        index.refresh()
        rows = [row for row in runs_here(index, workspace) if row.view.root is not None]
    return max(rows, key=lambda row: row.view.root_ns, default=None)


def checkpoint_here(session: Session, stop: Stop, before: ProcessState) -> State | None:
    """Checkpoint the workspace as it is; None where nothing changed."""
    engine, state = session.engine, stop.checkpoint
    was = {one.identity for tree in before.trees for one in tree.processes}
    if state is not None and was == {one.identity for one in session.alive.processes}:
        scan = engine.submit(engine.tracker.scan).result()
        if scan.clean and engine.tracker.root == state.root:
            return None
    turn, inner = _place(stop)
    job = Job(turn, inner, session.journal.seq)
    calls = stop.outside.get(turn, ())
    engine.capture(job, lambda: checkpoints.make(session, job, calls))
    job.durable.result()
    if job.fate is not Fate.CAPTURED or job.error is not None or session.root is None:
        raise Unprotected(
            f"what is on the disk cannot be checkpointed: {job.error}", where=session.id,
            hint="make room, then resume",
        )  # fmt: skip
    if turn == stop.turn:
        stop.inner = max(stop.inner, inner)
    return State(turn, inner, session.root, job.position)


def _place(stop: Stop) -> tuple[int, int]:
    """Which checkpoint the disk is, in a run that stopped there: turn, and point inside it."""
    ended = stop.turn if stop.ended is not None else stop.turn - 1
    last = stop.checkpoint
    done = last is not None and (  # a point `ended.n` lies before the end of that turn
        last.turn > ended or (last.turn == ended and last.inner == 0)
    )
    if stop.turn == 0 or (not done and not stop.turn_had_tools):
        return max(ended, 0), 0
    return stop.turn, stop.inner + 1
