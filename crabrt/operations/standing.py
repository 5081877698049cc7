"""How a workspace stands: which run protects it or did last, up to where, what is not captured."""

from __future__ import annotations

import os
from dataclasses import dataclass

from crabrt.journal import RunIndex, RunRow, TurnRow
from crabrt.journal.restores import Begin, RestoreLog
from crabrt.operations.cut_off import CutOff, cut_off
from crabrt.workspace import Workspace


@dataclass(frozen=True)
class Standing:
    """The state of a workspace.

    Attributes:
        run: the live run on it, else the newest that was; None if there never was one.
        turn: that run's latest turn.
        not_captured: paths that its journal says could not be captured, and why.
        cut_off: a restore that was killed and not finished yet.
        restored: what the last restore since that run's last entry put back (its label), and when
            (ns since the epoch); None if there was none.
        not_back: the processes that it was to bring back and could not, and why; a line for each.
    """

    run: RunRow | None
    turn: TurnRow | None
    not_captured: tuple[tuple[bytes, str], ...]
    cut_off: CutOff | None
    restored: tuple[str, int] | None = None
    not_back: tuple[str, ...] = ()


def standing_of(index: RunIndex, workspace: Workspace) -> Standing:
    """How `workspace` stands.

    Raises:
        DamagedJournal: its log of restores is broken.
        StoreUnavailable: something cannot be read.
    """
    log = RestoreLog(workspace.state_dir)
    killed = cut_off(workspace.home, index, workspace.id, workspace.path, workspace.state_dir)
    runs = [run for run in index.runs() if _overlap(run.workspace, workspace.path)]
    live = [run for run in runs if run.status == "running"]
    own = [run for run in runs if run.workspace == workspace.path]
    run = next(iter(live or own), None)
    if run is None:
        return Standing(None, None, (), killed)
    turns = index.turns(run.run, run.turns, run.turns)
    missed: dict[bytes, str] = {}
    for turn in index.turns(run.run):
        missed.update(turn.not_captured)
    point = log.undo_point(float("inf"))
    restored: tuple[str, int] | None = None
    not_back: tuple[str, ...] = ()
    if point is not None and point[1].wall_ns >= run.updated_ns:
        restored, revived = (point[0].label, point[1].wall_ns), log.last_revived()
        not_back = revived.missing if revived is not None and revived.id == point[0].id else ()
    return Standing(
        run,
        turns[0] if turns else None,
        tuple(sorted(missed.items())),
        killed,
        restored,
        not_back,
    )


def last_restore(workspace: Workspace, max_age_days: float) -> Begin | None:
    """The restore of `workspace` that an undo would take back; a killed one is finished first.

    Raises:
        DamagedJournal: its log of restores is broken.
        StoreUnavailable: it cannot be read.
    """
    return RestoreLog(workspace.state_dir).undoable(max_age_days)


def workspace_above(index: RunIndex, path: bytes) -> bytes:
    """The workspace that the real path `path` lies in, as far as any run knows; else `path` itself.

    So that commands work from anywhere inside a workspace.
    """
    if not os.path.isdir(path):
        return path
    known = {run.workspace for run in index.runs()}
    above = path
    while above not in known:
        parent = os.path.dirname(above)
        if parent == above:
            return path
        above = parent
    return above


def _overlap(one: bytes, two: bytes) -> bool:
    one, two = one.rstrip(b"/") + b"/", two.rstrip(b"/") + b"/"
    return one.startswith(two) or two.startswith(one)
