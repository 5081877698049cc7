"""Who is meant by ``RUN@TURN``: from what people type to one state that can be restored.

Names and numbers are resolved by the journal's index, whose errors say what there is instead; here
a bare ``RUN`` gets its meaning, and the answer the form that the other operations take.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from crabrt.core.ids import ObjectId
from crabrt.core.targets import LAST, Target, TurnRef, parse_target
from crabrt.errors import NotFound
from crabrt.journal import CheckpointRow, Position, RunIndex, RunRow, TurnRow
from crabrt.journal.lookup import find_run, refuse_if_damaged


@dataclass(frozen=True)
class State:
    """A state that can be restored.

    Attributes:
        run: the run it belongs to.
        turn, inner: which turn; `inner` is 0 for its end.
        root: the root of its tree.
        position: seq of the last journal entry that belongs to it.
        processes: id of the root of what was alive; empty if nothing was.
        after: a place in the journal before it (the one before the turn's first entry), to look
            for it from there; None: the beginning.
        skipped: later turns that have no checkpoint, where it was counted from the end.
    """

    run: RunRow
    turn: int
    inner: int
    root: ObjectId
    position: int
    processes: bytes = b""
    after: Position | None = None
    skipped: tuple[int, ...] = ()

    @classmethod
    def of(cls, run: RunRow, row: CheckpointRow) -> State:
        """The state that the index found in `run`."""
        after = row.turn_row.first
        return cls(
            run, row.turn, row.inner, row.root, row.position, row.processes, after, row.skipped
        )

    @property
    def name(self) -> str:
        """``RUN@TURN``, as people may type it."""
        return f"{self.run.run}@{self.turn}" + (f".{self.inner}" if self.inner else "")

    @property
    def workspace_path(self) -> str:
        """The directory it is a state of."""
        return os.fsdecode(self.run.workspace)


def last_run(index: RunIndex, directory: bytes) -> RunRow:
    """The run that ``last`` means to somebody in `directory` (a real path).

    It is the newest one whose workspace the directory is, or lies in; where there was never one,
    the newest that was started there; else the newest of the store, which `is_of` tells. Child
    runs do not count, nor do those whose beginning is damaged.

    Raises:
        NotFound: there are no runs.
    """
    started = [row for row in index.runs() if _was_started_in(row, directory)]
    return find_run(runs_near(index, directory) or started or index.runs(), LAST)


def is_of(run: RunRow, directory: bytes) -> bool:
    """Whether `run` works in or round `directory` (a real path), or was started there."""
    return _is_near(run, directory) or _was_started_in(run, directory)


def runs_near(index: RunIndex, directory: bytes) -> list[RunRow]:
    """The runs whose workspace `directory` (a real path) is, or lies in; newest first."""
    return [row for row in index.runs() if _is_near(row, directory)]


def _is_near(run: RunRow, directory: bytes) -> bool:
    return (directory.rstrip(b"/") + b"/").startswith(run.workspace.rstrip(b"/") + b"/")


def _was_started_in(run: RunRow, directory: bytes) -> bool:
    """Whether its program was; a fork was made of a run that was started somewhere."""
    view = run.view
    return view.forked_at is None and bool(view.run) and view.cwd == directory


def resolve(index: RunIndex, target: Target | str) -> State:
    """The state that `target` means; for a bare run, its latest restorable turn.

    Raises:
        UsageError: `target` is malformed.
        Ambiguous: several runs match.
        NotFound: no such run, turn or label; or a turn that has no checkpoint, or gave up its
            files: message and hint say which, and what there is instead.
        DamagedJournal: what is meant is behind damage, or the damage may hide it.
    """
    parsed = parse_target(target) if isinstance(target, str) else target
    run = index.find(parsed.run)
    if parsed.at is None:
        return _latest(index, run)
    return State.of(run, index.checkpoint(run.run, parsed.at))


def resolve_turn(index: RunIndex, target: Target | str) -> tuple[RunRow, TurnRow, int]:
    """The run, turn and inner point that `target` means, restorable or not; bare: the latest.

    Raises:
        UsageError, Ambiguous, NotFound, DamagedJournal: as `resolve`, but for checkpoints.
    """
    parsed = parse_target(target) if isinstance(target, str) else target
    run = index.find(parsed.run)
    if parsed.at is None:
        refuse_if_damaged(run)
    at = TurnRef(turn=run.turns) if parsed.at is None else parsed.at
    turn = index.turn(run.run, at)
    inner = run.labels[at.label][1] if at.label in run.labels else at.inner
    if inner and all(point.inner != inner for point in turn.inner):
        known = ", ".join(f"{turn.turn}.{point.inner}" for point in turn.inner) or "none"
        raise NotFound(
            "the turn has no such inner checkpoint", where=f"{run.run}@{at}", hint=f"known: {known}"
        )
    return run, turn, inner


def restorable_states(
    index: RunIndex, run: RunRow, first: int | None = None, last: int | None = None
) -> list[State]:
    """Every state of the ends of turns `first` to `last` that can be restored, in turn order."""
    return [
        State(run, turn.turn, 0, turn.root, turn.position, turn.processes, turn.first)
        for turn in index.turns(run.run, first, last)
        if turn.restorable and turn.root is not None
    ]


def _latest(index: RunIndex, run: RunRow) -> State:
    try:
        return State.of(run, index.checkpoint(run.run, TurnRef(turn=-1)))
    except NotFound as error:
        raise NotFound(
            "no turn of this run can be restored",
            where=run.run,
            hint=f"see why: crab log {run.run}",
        ) from error
