"""Put a workspace back to a turn: the rules round ``workspace.restore`` that need runs to be known.

Who may be working there (then it is refused), what its owner last knew (so that somebody else's
work is not overwritten), a restore that was killed (it is finished first), and what happened
outside that no restore takes back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from crabrt.core.ids import ObjectId
from crabrt.errors import NotFound, UsageError
from crabrt.journal import RunIndex, RunRow
from crabrt.journal.restores import RestoreLog
from crabrt.operations import alive, naming
from crabrt.operations.alive import Company, left_running, quietly, together
from crabrt.operations.cut_off import runs_at
from crabrt.operations.effects import OutsideEffect, effects_since
from crabrt.operations.roots import UNDO_KEEP_DAYS
from crabrt.operations.targets import State
from crabrt.operations.unfinished import finish
from crabrt.process.criu import Criu
from crabrt.process.revivals import Revival
from crabrt.store import Store, StoreWriter
from crabrt.workspace import (
    Claim,
    Workspace,
    find_entry,
)
from crabrt.workspace.restoring import (
    Beside,
    RestoreReport,
    recover,
    restore,
    restore_to,
    undo,
)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Restored:
    """What a restore did.

    Attributes:
        report: the files.
        finished: the report of a killed restore that was finished first, or None. Of a dry run,
            `RestoreReport.finishes` says whether one will be.
        effects: what happened outside since the state, and stays.
        directory: where the files were put.
        processes: what became of them.
        finished_processes: what became of those of a killed restore that was finished first; None
            if there was none such. Who of them is not back is left out where this one was about
            processes itself.
    """

    report: RestoreReport
    finished: RestoreReport | None
    effects: tuple[OutsideEffect, ...]
    directory: bytes
    processes: Revival = field(default_factory=Revival)
    finished_processes: Revival | None = None

    @property
    def complete(self) -> bool:
        """Whether all is as it was, files and processes."""
        finished = self.finished_processes is None or self.finished_processes.complete
        return self.report.complete and self.processes.complete and finished


def restore_state(
    index: RunIndex,
    writer: StoreWriter,
    workspace: Workspace,
    state: State,
    *,
    paths: Sequence[bytes] = (),
    dry_run: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    by: Callable[[], Criu | str] | None = None,
    may_start: bool = False,
    expect: str | None = None,
    files_only: bool = False,
    say: Callable[[str], None] = quietly,
) -> Restored:
    """Put `workspace` (or only `paths` of it, relative to it) back to `state`.

    Args:
        index: knows the runs.
        writer: has the states, and takes the one before.
        workspace: whose.
        state: which.
        paths: none: everything.
        dry_run: touch nothing.
        force: overwrite what somebody else changed; and restore the rest where the image of
            a process is damaged or missing.
        progress: is told how far it is.
        by: gives who restores processes too, or why nobody can; None: nobody, and those of a killed
            restore that is finished first are only told.
        may_start: whether what has no image may be started again from its recorded command.
        expect: the `RestoreReport.preview` of a dry run: do what that listed, or nothing.
        files_only: leave processes alone, but for those of a killed restore that is finished first.
            With `paths` likewise.
        say: is told, for people, what is waited for if that takes a while.

    Raises:
        RunBusy: a run of the state's family is live there in another process.
        WorkspaceBusy: another family is.
        WouldLoseChanges: somebody else's changes are in the way, and not `force`.
        PreviewOutdated: it would not do what was expected.
        DamagedObject: a file or an image is damaged or missing, and not `force`.
        NotFound: a path is in neither state.
        CrabError: as ``workspace.restore``.
    """
    family = state.run.family
    with _Quiet(index, workspace, family, "restore"):
        here = may_start and not _was_elsewhere(index, state)
        company = replace(
            _company(index, writer, workspace, family, by, say=say),
            may_start=here,
            run=state.run.run,
            force=force,
        )
        finished = _Finished() if dry_run else _recover(company, index, progress)

        def files(beside: Beside | None) -> RestoreReport:
            return restore(
                workspace,
                writer,
                state.root,
                base=last_known(index, workspace),
                paths=paths,
                force=force,
                dry_run=dry_run,
                label=f"restore {state.name}",
                progress=progress,
                beside=beside,
                expect=expect,
            )

        revival = Revival()
        if by is None or files_only or paths:
            report = files(None)
        else:
            report, revival = together(company, state.processes, files, dry_run=dry_run)
            finished = finished.superseded()
    effects = effects_since(index, state)
    return Restored(report, finished.files, effects, workspace.path, revival, finished.processes)


def _company(
    index: RunIndex,
    writer: StoreWriter,
    workspace: Workspace,
    family: str | None,
    by: Callable[[], Criu | str] | None,
    *,
    say: Callable[[str], None],
) -> Company:
    """Whose processes a restore is about: those of a family, or of all runs that worked there."""
    every = runs_here(index, workspace)
    runs = [run.run for run in every if family is None or run.family == family]
    look = partial(left_running, index, writer, workspace, runs, say)
    return Company(writer, workspace, look, by or _nobody)


def _nobody() -> str:
    return alive.NOT_WANTED


def _was_elsewhere(index: RunIndex, state: State) -> bool:
    """Whether a fork's state is one of its parent's, which worked in another directory."""
    if not alive.is_parents(state) or state.run.parent is None:
        return False
    try:
        return index.run(state.run.parent).workspace != state.run.workspace
    except NotFound:
        return True  # deleted: where it worked is not known any more


@dataclass(frozen=True)
class _Finished:
    """What came of a killed restore that was finished: its files, its processes; None: nothing."""

    files: RestoreReport | None = None
    processes: Revival | None = None

    def superseded(self) -> _Finished:
        """The same before a restore of processes: who is not back is none of its concern."""
        if self.processes is None:
            return self
        return replace(self, processes=replace(self.processes, missing=(), started=()))


def _recover(company: Company, index: RunIndex, progress: Progress | None) -> _Finished:
    """Finish a killed restore, its files and its processes; if forced, or give it up."""
    workspace = company.workspace
    files = recover(workspace, company.writer, force=company.force, progress=progress)
    made_ns = [run.view.root_ns for run in runs_here(index, workspace) if run.view.root]
    return _Finished(files, finish(company, max(made_ns, default=0)))


def restore_beside(
    store: Store,
    index: RunIndex,
    state: State,
    directory: Path,
    *,
    paths: Sequence[bytes] = (),
    force: bool = False,
    progress: Progress | None = None,
) -> Restored:
    """Make `state` (or only `paths` of it) in `directory`; the workspace is not touched.

    Nor is any process: who was alive then is told.

    Raises:
        CrabError: as ``workspace.restore_to``.
    """
    report = restore_to(store, state.root, directory, paths=paths, force=force, progress=progress)
    notes = () if paths else alive.left_out(state, store)
    effects, made = effects_since(index, state), os.fsencode(directory.absolute())
    return Restored(report, None, effects, made, Revival(notes=notes))


def undo_restore(
    index: RunIndex,
    writer: StoreWriter,
    workspace: Workspace,
    *,
    dry_run: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    by: Callable[[], Criu | str] | None = None,
    may_start: bool = False,
    expect: str | None = None,
    say: Callable[[str], None] = quietly,
) -> Restored:
    """Undo the last restore of `workspace`; undoing again is a redo.

    With `by`, `may_start` and `force` as in `restore_state`, processes go back as well, if that
    restore was about them; `expect` and `say` as there.

    Raises:
        WorkspaceBusy: a run is live there.
        NotFound: there is nothing to undo.
        CrabError: as ``workspace.undo``.
    """
    with _Quiet(index, workspace, f"undo-{os.getpid()}", "undo the restore of"):
        company = _company(index, writer, workspace, None, by, say=say)
        here = sorted(runs_here(index, workspace), key=lambda run: run.view.root_ns or 0)
        runs = ",".join(run.run for run in here)
        company = replace(company, may_start=may_start, run=runs, force=force)
        finished = _Finished() if dry_run else _recover(company, index, progress)

        def files(beside: Beside | None) -> RestoreReport:
            return undo(
                workspace,
                writer,
                base=last_known(index, workspace),
                force=force,
                dry_run=dry_run,
                progress=progress,
                beside=beside,
                expect=expect,
            )

        undone = RestoreLog(workspace.state_dir).undoable(UNDO_KEEP_DAYS)
        revival = Revival()
        if by is None or undone is None or not undone.is_about_processes:
            report = files(None)
        else:
            before = undone.alive_before or b""
            report, revival = together(company, before, files, dry_run=dry_run)
            finished = finished.superseded()
    return Restored(report, finished.files, (), workspace.path, revival, finished.processes)


def last_known(index: RunIndex, workspace: Workspace) -> ObjectId | None:
    """The newest state of `workspace` that a run left, or that is known since a restore.

    What differs from it was changed by somebody who is neither. None if there never was one.

    Raises:
        DamagedJournal, StoreUnavailable: the log of restores cannot be read.
    """
    newest: tuple[int, ObjectId] | None = None
    for run in runs_here(index, workspace):
        view = run.view
        if view.root is not None:
            newest = max(newest or (0, view.root), (view.root_ns, view.root))
    ended = RestoreLog(workspace.state_dir).last_end()
    if ended is not None and (newest is None or ended.wall_ns >= newest[0]):
        return ended.base
    return None if newest is None else newest[1]


def runs_here(index: RunIndex, workspace: Workspace) -> list[RunRow]:
    """The runs whose states were in `workspace`: see `runs_at`."""
    return runs_at(index, workspace.id)


def scoped_paths(
    store: Store, state: State, workspace: bytes, given: Sequence[bytes], cwd: bytes
) -> tuple[bytes, ...]:
    """Paths as people give them, relative to the workspace.

    A relative path may be meant from the current directory (if that is inside the workspace) or
    from the workspace's root; the first of the two that exists, now or in `state`, is taken. An
    absolute one means one thing: below `workspace` it is a name in it, whatever is a symlink now.

    Raises:
        UsageError: a path is outside the workspace.
        NotFound: nothing is at a path, neither now nor in `state`.
    """
    return tuple(_scoped(store, state, workspace, path, cwd) for path in given)


def _scoped(store: Store, state: State, workspace: bytes, given: bytes, cwd: bytes) -> bytes:
    inside_cwd = _below(workspace, os.path.realpath(cwd))
    candidates = []
    if os.path.isabs(given):
        named = _below(workspace, os.path.normpath(given))
        if named is None:  # by another way: a directory above the workspace is a symlink
            parent, name = os.path.split(given.rstrip(b"/") or b"/")
            named = _below(workspace, os.path.join(os.path.realpath(parent), name))
        candidates.append(named)
    else:
        if inside_cwd is not None:
            candidates.append(_below(workspace, _joined(workspace, inside_cwd, given)))
        candidates.append(_below(workspace, _joined(workspace, b"", given)))
    inside = [path for path in candidates if path is not None]
    if not inside:
        raise UsageError(
            "that path is outside the workspace",
            where=os.fsdecode(given),
            hint=f"the workspace is {os.fsdecode(workspace)}",
        )
    for path in inside:
        if os.path.lexists(os.path.join(workspace, path)) or _recorded(store, state, path):
            return path
    raise NotFound(
        "there is nothing at this path, neither now nor in that turn", where=os.fsdecode(given)
    )


def _joined(workspace: bytes, inside: bytes, given: bytes) -> bytes:
    return os.path.normpath(os.path.join(workspace, inside, given))


def _below(workspace: bytes, path: bytes) -> bytes | None:
    if path == workspace:
        return b""
    above = workspace.rstrip(b"/") + b"/"
    return path[len(above) :] if path.startswith(above) else None


def _recorded(store: Store, state: State, path: bytes) -> bool:
    try:
        find_entry(store, state.root, path)
    except NotFound:
        return False
    return True


class _Quiet:
    """Nobody else works in the workspace while this is held.

    Runs of other families are kept out by a claim; live runs of the own family, which a claim would
    let pass, by a look at their leases.
    """

    def __init__(self, index: RunIndex, workspace: Workspace, family: str, doing: str) -> None:
        self._index = index
        self._workspace = workspace
        self._family = family
        self._doing = doing
        self._claim: Claim | None = None

    def __enter__(self) -> None:
        self._claim = self._workspace.claim(self._family, shared=False)
        try:
            for run in self._index.runs():
                here = run.workspace_id == self._workspace.id  # a relative elsewhere may go on
                if run.family == self._family and here:
                    naming.refuse_if_live(self._workspace.home, run, self._doing)
        except BaseException:
            self._claim.release()
            raise

    def __exit__(self, *_: object) -> None:
        assert self._claim is not None
        self._claim.release()
