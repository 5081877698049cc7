"""External effects that a restore cannot take back: what happened outside since a state.

Files go back; what left the machine does not. Effects are looked up by family: a fork shares the
world with the run it came from.
"""

from __future__ import annotations

from dataclasses import dataclass

from crabrt.core.verdicts import Prior
from crabrt.journal import RunIndex, RunRow, TurnRow
from crabrt.operations.targets import State


@dataclass(frozen=True)
class OutsideEffect:
    """One external call since the state: where, what, and how it ended (`ok` None: it is open)."""

    run: str
    turn: int
    tool: str
    ok: bool | None


def effects_since(index: RunIndex, state: State) -> tuple[OutsideEffect, ...]:
    """External calls made after `state`, in its run and in the runs of its family."""
    start = index.turns(state.run.run, state.turn, state.turn)
    since_ns = start[0].started_ns if start else 0
    found: list[OutsideEffect] = []
    for turn in index.external_turns(state.run.run, state.turn):
        found += _external(state.run, turn, after_seq=state.position)
    for run in index.runs():
        if run.run == state.run.run or run.family != state.run.family:
            continue
        forked_at = run.view.forked_at
        own = 0 if forked_at is None else forked_at + 1
        for turn in index.external_turns(run.run, own):
            if turn.started_ns >= since_ns:
                found += _external(run, turn, after_seq=0)
    return tuple(found)


def _external(run: RunRow, turn: TurnRow, *, after_seq: int) -> list[OutsideEffect]:
    return [
        OutsideEffect(run.run, turn.turn, tool.name, tool.ok)
        for tool in turn.tools
        if tool.prior is Prior.EXTERNAL and tool.seq > after_seq
    ]
