"""External effects that a restore cannot take back: what happened outside since a state.

Files go back; what left the machine does not. Effects are looked up by family: a fork shares the
world with the run it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from crabrt.journal import RunIndex, RunRow, TurnRow
from crabrt.journal.outside import DECLARED, GUESS, suspects
from crabrt.journal.views import ModelView, ToolView
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
    """What was done outside after `state`, in its run and in the runs of its family.

    A history that runs share is told once, as the state's own run has it: there the order of the
    journal decides. What another run did by itself counts if it ended after the state, by clock.
    """
    runs = {run.run: run for run in index.runs()}
    shared = _shared(runs, state.run)
    since_ns = _moment_ns(index, state)
    found: list[OutsideEffect] = []
    for turn in index.external_turns(state.run.run, state.turn):
        found += _outside(state.run, turn, after_seq=state.position)
    for run in runs.values():
        if run.run == state.run.run or run.family != state.run.family:
            continue
        own = max(run.view.lineage.seq or 0, shared.get(run.run, 0))
        for turn in index.external_turns(run.run, run.view.forked_at or 0):
            found += _outside(run, turn, after_seq=own, since_ns=since_ns)
    return tuple(found)


def _shared(runs: Mapping[str, RunRow], run: RunRow) -> dict[str, int]:
    """The runs that `run` was forked from, each with the last entry that is its history too."""
    shared: dict[str, int] = {}
    one: RunRow | None = run
    while one is not None:
        parent, seq = one.view.lineage.parent, one.view.lineage.seq
        if parent is None or seq is None or parent in shared:
            break
        shared[parent] = min(seq, *shared.values()) if shared else seq
        one = runs.get(parent)
    return shared


def _moment_ns(index: RunIndex, state: State) -> int:
    """When the state was, by clock: the last call that belongs to it had ended then."""
    turns = index.turns(state.run.run, state.turn, state.turn + 1)
    if not turns:
        return 0
    turn, *later = turns
    calls: tuple[ToolView | ModelView, ...] = (*turn.tools, *turn.models)
    ended = [_ended_ns(call) for call in calls if call.seq <= state.position]
    return min([max([turn.started_ns, *ended]), *(one.started_ns for one in later)])


def _ended_ns(call: ToolView | ModelView) -> int:
    """When a call ended, or began if it did not."""
    took_ms = call.duration_ms if isinstance(call, ToolView) else call.wait_ms
    return call.began_ns + int(took_ms * 1_000_000)


def _outside(
    run: RunRow, turn: TurnRow, *, after_seq: int, since_ns: int = 0
) -> list[OutsideEffect]:
    return [
        OutsideEffect(run.run, turn.turn, tool.name, tool.ok, known, _why(turn, tool, known))
        for tool, known in suspects(turn)
        if tool.seq > after_seq and _ended_ns(tool) >= since_ns
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
