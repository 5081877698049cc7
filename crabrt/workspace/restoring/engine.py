"""The three verbs on a workspace: restore, take the last restore back, finish a killed one."""

from __future__ import annotations

import os
from collections.abc import Sequence

from crabrt.core.ids import ObjectId
from crabrt.core.ports import ObjectWriter
from crabrt.errors import NotFound
from crabrt.journal.restores import RestoreLog
from crabrt.workspace.identity import Workspace
from crabrt.workspace.restoring.apply import Progress
from crabrt.workspace.restoring.lock import restore_lock
from crabrt.workspace.restoring.report import RestoreReport
from crabrt.workspace.restoring.scope import Scope
from crabrt.workspace.restoring.session import UNDO_KEEP_DAYS, Beside, Session
from crabrt.workspace.tracker import Tracker


def restore(
    workspace: Workspace,
    writer: ObjectWriter,
    target: ObjectId,
    *,
    base: ObjectId | None,
    paths: Sequence[bytes] = (),
    force: bool = False,
    dry_run: bool = False,
    label: str = "",
    progress: Progress | None = None,
    tracker: Tracker | None = None,
    beside: Beside | None = None,
    expect: str | None = None,
) -> RestoreReport:
    """Bring the workspace, or only `paths` in it, to the state `target`.

    Args:
        workspace: what to restore.
        writer: has the target, and takes the checkpoint of what is there.
        target: the root to go to.
        base: the state its owner last knew: what differs from it now was changed by somebody else.
            None: nothing is known of anybody else.
        paths: files or directories, relative, raw bytes; none: everything.
        force: overwrite what somebody else changed; list damaged files and restore the others.
        dry_run: touch nothing, log nothing; conflicts are listed instead of raised. An interrupted
            restore is taken for finished.
        label: what to call it in the log.
        progress: called with steps done and steps in all.
        tracker: of this workspace, if there is a live one.
        beside: what else is restored, and has to be logged with it.
        expect: the `RestoreReport.preview` of a dry run: do what that listed, or nothing.

    Returns:
        What was done. What could not be is in it; see `RestoreReport.complete`.

    Raises:
        WouldLoseChanges: somebody else's changes are in the way, and not `force`.
        PreviewOutdated: it would not do what was expected; nothing was touched.
        NotFound: the target, or a path in both states, does not exist.
        UsageError: a path leads outside.
        Busy: another restore of this workspace runs.
        Damaged: a stored object or the log cannot be read.
        RestoreFailed: the file system refuses; the message says whether anything was touched.
        StoreUnavailable: the checkpoint cannot be stored; nothing was touched.
    """
    scope = Scope(paths)
    with restore_lock(workspace.state_dir):
        session = Session(workspace, writer, tracker, progress)
        if not dry_run:
            session.finish_interrupted(force=force)
        return session.restore(
            target,
            base,
            scope,
            force=force,
            dry_run=dry_run,
            label=label,
            beside=beside,
            expect=expect,
        )


def undo(
    workspace: Workspace,
    writer: ObjectWriter,
    *,
    base: ObjectId | None = None,
    force: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
    tracker: Tracker | None = None,
    max_age_days: float = UNDO_KEEP_DAYS,
    beside: Beside | None = None,
    expect: str | None = None,
) -> RestoreReport:
    """Take the last restore back, within its paths. Is a restore itself: undoing it is a redo.

    What changed since `base` is somebody else's work, and refused unless `force`.

    Args:
        workspace: what to restore.
        writer: has the states, and takes the checkpoint of what is there.
        base: the state its owner last knew (a run may have gone on from what was restored); None:
            what is known since the restore.
        force: overwrite what somebody else changed.
        dry_run: as in `restore`; of an interrupted restore, say what undoing that would do.
        progress: called with steps done and steps in all.
        tracker: of this workspace, if there is a live one.
        max_age_days: older restores are not taken back.
        beside: as in `restore`.
        expect: as in `restore`.

    Raises:
        NotFound: no restore is young enough to be undone.
        CrabError: as `restore`.
    """
    log = RestoreLog(workspace.state_dir)
    with restore_lock(workspace.state_dir):
        session = Session(workspace, writer, tracker, progress)
        if not dry_run:
            session.finish_interrupted(force=True)
        begun = log.undoable(max_age_days)
        if begun is None:
            raise NotFound(
                "no restore of this workspace can be undone",
                where=os.fsdecode(workspace.path),
                hint=f"undo points are kept {max_age_days:g} days",
            )
        ended = None if log.interrupted() is not None else log.last_end()
        known = begun.target if ended is None else ended.base
        base = base or known
        return session.restore(
            begun.before,
            base,
            Scope(begun.paths),
            force=force,
            dry_run=dry_run,
            label="undo",
            beside=beside,
            expect=expect,
            known=begun.base,
            left=(begun.target,) if ended is None or base == known else (),
        )


def recover(
    workspace: Workspace,
    writer: ObjectWriter,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> RestoreReport | None:
    """Finish a restore that was killed; None when there is none.

    What somebody changed since it was killed is left alone and listed in `conflicts`. With `force`,
    one that cannot be finished is given up (None): what is there is what it left.

    Raises:
        CrabError: as `restore`.
    """
    if RestoreLog(workspace.state_dir).interrupted() is None:
        return None
    with restore_lock(workspace.state_dir):
        return Session(workspace, writer, None, progress).finish_interrupted(force=force)
