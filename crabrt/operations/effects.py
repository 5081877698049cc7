"""External effects that a restore cannot take back: what happened outside since a state.

Files go back; what left the machine does not. Effects are looked up by family: a fork shares the
world with the run it came from.
"""

from __future__ import annotations

from dataclasses import dataclass

from crabrt.journal import RunIndex, RunRow, TurnRow
from crabrt.journal.outside import DECLARED, GUESS, suspects
from crabrt.journal.views import ToolView
from crabrt.operations.targets import State


@dataclass(frozen=True)
class OutsideEffect:
    """One call since the state that acted outside, or may have.

    Attributes:
        run, turn, tool: where, and what.
        ok: how it ended; None: it has no result.
        known: ``declared``; ``guess``: it was taken for external; ``seen``: its turn reached the
            world, and of this call nothing is known that would rule it out.
        why: what the verdict over the turn says of it; empty for a declared one, and for a turn
            that has no verdict.
    """

    run: str
    turn: int
    tool: str
    ok: bool | None
    known: str = DECLARED
    why: str = ""


def effects_since(index: RunIndex, state: State) -> tuple[OutsideEffect, ...]:
    """What was done outside after `state`, in its run and in the runs of its family."""
    start = index.turns(state.run.run, state.turn, state.turn)
    since_ns = start[0].started_ns if start else 0
    found: list[OutsideEffect] = []
    for turn in index.external_turns(state.run.run, state.turn):
        found += _outside(state.run, turn, after_seq=state.position)
    for run in index.runs():
        if run.run == state.run.run or run.family != state.run.family:
            continue
        forked_at = run.view.forked_at
        own = 0 if forked_at is None else forked_at + 1
        for turn in index.external_turns(run.run, own):
            if turn.started_ns >= since_ns:
                found += _outside(run, turn, after_seq=0)
    return tuple(found)


def _outside(run: RunRow, turn: TurnRow, *, after_seq: int) -> list[OutsideEffect]:
    return [
        OutsideEffect(run.run, turn.turn, tool.name, tool.ok, known, _why(turn, tool, known))
        for tool, known in suspects(turn)
        if tool.seq > after_seq
    ]


def _why(turn: TurnRow, tool: ToolView, known: str) -> str:
    """What the evidence of the turn says (see ``inspector.classify`` for its form)."""
    if known == DECLARED:
        return ""
    head, tail = "external: ", f" ({known})"
    if known == GUESS:
        head += f"{tool.name}, "
    said = (line for line in turn.evidence if line.startswith(head) and line.endswith(tail))
    return "; ".join(line[len(head) : -len(tail)] for line in said)
