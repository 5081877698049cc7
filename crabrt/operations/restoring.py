"""Put a workspace back to a turn: the rules round ``workspace.restore`` that need runs to be known.

Who may be working there (then it is refused), what its owner last knew (so that somebody else's
work is not overwritten), a restore that was killed (it is finished first), and what happened
outside that no restore takes back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from crabrt.core.ids import ObjectId
from crabrt.errors import NotFound, UsageError
from crabrt.journal import RunIndex, RunRow
from crabrt.journal.views import FORKED
from crabrt.operations import naming
from crabrt.operations.effects import OutsideEffect, effects_since
from crabrt.operations.targets import State
from crabrt.store import Store, StoreWriter
from crabrt.workspace import (
    Claim,
    Workspace,
    find_entry,
)
from crabrt.workspace.restoring import (
    RestoreLog,
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
        finished: the report of a killed restore that was finished first, or None.
        effects: what happened outside since the state, and stays.
        directory: where the files were put.
    """

    report: RestoreReport
    finished: RestoreReport | None
    effects: tuple[OutsideEffect, ...]
    directory: bytes


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
) -> Restored:
    """Put `workspace` (or only `paths` of it, relative to it) back to `state`.

    Raises:
        RunBusy: a run of the state's family is live there in another process.
        WorkspaceBusy: another family is.
        WouldLoseChanges: somebody else's changes are in the way, and not `force`.
        NotFound: a path is in neither state.
        CrabError: as ``workspace.restore``.
    """
    family = state.run.family
    with _Quiet(index, workspace, family, "restore"):
        finished = None if dry_run else recover(workspace, writer, progress=progress)
        report = restore(
            workspace,
            writer,
            state.root,
            base=last_known(index, workspace),
            paths=paths,
            force=force,
            dry_run=dry_run,
            label=f"restore {state.name}",
            progress=progress,
        )
    return Restored(report, finished, effects_since(index, state), workspace.path)


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

    Raises:
        CrabError: as ``workspace.restore_to``.
    """
    report = restore_to(store, state.root, directory, paths=paths, force=force, progress=progress)
    return Restored(report, None, effects_since(index, state), os.fsencode(directory.absolute()))


def undo_restore(
    index: RunIndex,
    writer: StoreWriter,
    workspace: Workspace,
    *,
    dry_run: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Restored:
    """Undo the last restore of `workspace`; undoing again is a redo.

    Raises:
        WorkspaceBusy: a run is live there.
        NotFound: there is nothing to undo.
        CrabError: as ``workspace.undo``.
    """
    with _Quiet(index, workspace, f"undo-{os.getpid()}", "undo the restore of"):
        finished = None if dry_run else recover(workspace, writer, progress=progress)
        report = undo(
            workspace,
            writer,
            base=last_known(index, workspace),
            force=force,
            dry_run=dry_run,
            progress=progress,
        )
    return Restored(report, finished, (), workspace.path)


def finish_killed(writer: StoreWriter, workspace: Workspace) -> RestoreReport | None:
    """Finish a restore of `workspace` that was killed; None when there is none.

    Raises:
        CrabError: as ``workspace.recover``.
    """
    return recover(workspace, writer)


def last_known(index: RunIndex, workspace: Workspace) -> ObjectId | None:
    """The newest state of `workspace` that a run or a restore left; None if there never was one.

    What differs from it was changed by somebody who is neither.

    Raises:
        DamagedJournal, StoreUnavailable: the log of restores cannot be read.
    """
    newest: tuple[int, ObjectId] | None = None
    for run in runs_here(index, workspace):
        view = run.view
        if view.root is not None:
            newest = max(newest or (0, view.root), (view.root_ns, view.root))
    ended = RestoreLog(workspace.state_dir).last_end_root()
    if ended is not None and (newest is None or ended[1] >= newest[0]):
        return ended[0]
    return None if newest is None else newest[1]


def runs_here(index: RunIndex, workspace: Workspace) -> list[RunRow]:
    """The runs whose states were in `workspace`.

    Not among them: a fork of a run in the same directory that nobody has taken up yet. Its state is
    a past one of its parent's, and younger than everything the parent did since.
    """
    here = [run for run in index.runs() if run.workspace_id == workspace.id]
    ids = {run.run for run in here}
    return [run for run in here if run.view.status != FORKED or run.parent not in ids]


def scoped_paths(
    store: Store, state: State, workspace: bytes, given: Sequence[bytes], cwd: bytes
) -> tuple[bytes, ...]:
    """Paths as people give them, relative to the workspace.

    A relative path may be meant from the current directory (if that is inside the workspace) or
    from the workspace's root; the first of the two that exists, now or in `state`, is taken.

    Raises:
        UsageError: a path is outside the workspace.
        NotFound: nothing is at a path, neither now nor in `state`.
    """
    return tuple(_scoped(store, state, workspace, path, cwd) for path in given)


def _scoped(store: Store, state: State, workspace: bytes, given: bytes, cwd: bytes) -> bytes:
    inside_cwd = _below(workspace, os.path.realpath(cwd))
    candidates = []
    if os.path.isabs(given):
        parent, name = os.path.split(given.rstrip(b"/") or b"/")
        candidates.append(_below(workspace, os.path.join(os.path.realpath(parent), name)))
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
                if run.family == self._family:
                    naming.refuse_if_live(self._workspace.home, run, self._doing)
        except BaseException:
            self._claim.release()
            raise

    def __exit__(self, *_: object) -> None:
        assert self._claim is not None
        self._claim.release()
