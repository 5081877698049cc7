"""A restore that was killed and waits to be finished: what only looks leaves it so, and says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crabrt.journal import RunIndex, RunRow
from crabrt.journal.restores import Begin, RestoreLog
from crabrt.journal.views import FORKED


@dataclass(frozen=True)
class CutOff:
    """A restore that was killed.

    Attributes:
        begin: how it began.
        files_done: only its processes are not back yet.
    """

    begin: Begin
    files_done: bool


def cut_off(
    home: Path, index: RunIndex, workspace_id: str, path: bytes, state_dir: Path
) -> CutOff | None:
    """The restore that is cut off in the workspace at `path`, if there is one.

    None as well while somebody works there: a restore may be under way, and a run has finished what
    it found.

    Args:
        home: the store.
        index: knows the runs.
        workspace_id: whose.
        path: of its directory.
        state_dir: where the store keeps what it knows of the workspace.

    Raises:
        DamagedJournal: its log of restores is broken.
        StoreUnavailable: something cannot be read.
    """
    log = RestoreLog(state_dir)
    begin, files_done = log.interrupted(), False
    if begin is None:
        unfinished = log.unrevived()
        made_ns = [run.view.root_ns for run in runs_at(index, workspace_id) if run.view.root]
        if unfinished is None or max(made_ns, default=0) > unfinished.begin.wall_ns:
            return None  # there is none, or a run went on since
        begin, files_done = unfinished.begin, True
    from crabrt.workspace.claims import is_claimed  # noqa: PLC0415 - few who look need to know

    if is_claimed(home / "workspaces" / "claims", path):
        return None
    return CutOff(begin, files_done)


def runs_at(index: RunIndex, workspace_id: str) -> list[RunRow]:
    """The runs whose states were in a workspace.

    Not among them: a fork of a run in the same directory that nobody has taken up yet. Its state is
    a past one of its parent's, and younger than everything the parent did since.
    """
    here = [run for run in index.runs() if run.workspace_id == workspace_id]
    ids = {run.run for run in here}
    return [run for run in here if run.view.status != FORKED or run.parent not in ids]
