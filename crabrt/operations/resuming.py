"""What `crab resume` has to know before it starts a recorded command again.

The command itself restores, replays and goes on: the recorded program is executed, in the recorded
directory, with ``CRAB_RESUME`` naming the run. Here is only whether that makes sense, and what to
run.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from crabrt.core.targets import Target, TurnRef
from crabrt.errors import NotFound, NotResumable
from crabrt.journal import RunIndex
from crabrt.operations import naming
from crabrt.operations.targets import State, resolve


@dataclass(frozen=True)
class Command:
    """What to execute: argv, directory, the target for ``CRAB_RESUME``, and from which state."""

    argv: tuple[str, ...]
    directory: str
    target: str
    state: State


def resume_command(index: RunIndex, target: Target) -> Command:
    """The recorded command of `target`'s run, to go on from there.

    Raises:
        NotFound, Ambiguous: no such run or turn, or the turn cannot be restored.
        RunBusy: the run is live.
        NotResumable: it is finished, or no command was recorded.
    """
    run = index.find(target.run)
    view = run.view
    naming.refuse_if_live(index.home, run, "resume")
    at_end = target.at is None or target.at == TurnRef(turn=-1)
    if run.status == "done" and at_end:
        raise NotResumable(
            "the run is finished: there is nothing to go on with",
            where=run.run,
            hint=f"go on differently from a turn: crab resume {run.run}@TURN",
        )
    state = resolve(index, target)
    if not view.argv:
        raise NotResumable(
            "no command was recorded for this run",
            where=run.run,
            hint=f'call the agent\'s function yourself: fn.resume("{target}")',
        )
    directory = _moved(view.cwd, _original_workspace(index, run.parent), run.workspace)
    if not os.path.isdir(directory):
        raise NotFound(
            "the directory of the recorded command is gone", where=os.fsdecode(directory)
        )
    resumed = run.run if target.at is None else f"{run.run}@{target.at}"
    return Command(view.argv, os.fsdecode(directory), resumed, state)


def _original_workspace(index: RunIndex, parent: str | None) -> bytes | None:
    """The workspace that the recorded directory was written down with: the oldest ancestor's."""
    workspace: bytes | None = None
    seen: set[str] = set()
    while parent is not None and parent not in seen:
        seen.add(parent)
        try:
            row = index.run(parent)
        except NotFound:
            break  # deleted: what is known so far has to do
        workspace, parent = row.workspace, row.parent
    return workspace


def _moved(cwd: bytes, old: bytes | None, new: bytes) -> bytes:
    """`cwd`, moved along with a workspace that was forked elsewhere."""
    if old is None or old == new:
        return cwd
    if cwd == old:
        return new
    return new + cwd[len(old) :] if cwd.startswith(old.rstrip(b"/") + b"/") else cwd
