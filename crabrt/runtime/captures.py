"""Captures that were whole when their process died: they are made durable, and C may be the last.

A capture is written before it is synced, so that it outlives its process; one behind it counts only
where all before it are whole as well, as each says what changed since the one before.
"""

from __future__ import annotations

import dataclasses

from crabrt.core.entries import Checkpoint
from crabrt.core.verdicts import Protection
from crabrt.runtime import checkpoints, spooled
from crabrt.runtime.recovery import State, Stop
from crabrt.runtime.session import Session
from crabrt.store import Store, StoreWriter


def finishable(store: Store, stop: Stop) -> list[tuple[State, str | None]]:
    """Captures that are all there, whose process died before they were durable; in their order.

    With each, what was missing when it was made.
    """
    found: list[tuple[State, str | None]] = []
    base = stop.checkpoint.root if stop.checkpoint is not None else None
    chained = True
    for state, gap in stop.unfinished:
        chained = checkpoints.whole(store, state.root, base) and (
            spooled.is_whole(state.spool, chained=chained)
        )
        if chained:
            found.append((state, gap))
            base = state.root
    return found


def last_state(store: Store, stop: Stop) -> State | None:
    """C: the last state that is durable, or can be made so."""
    states = finishable(store, stop)
    return states[-1][0] if states else stop.checkpoint


def finish_captures(session: Session, stop: Stop) -> None:
    """Make them durable; C, in `stop`, is the last of them then."""
    states = finishable(session.engine.store, stop)
    stop.unfinished.clear()
    if not states:
        session.spool.clear()
        return
    session.engine.writer.sync()
    for found, gap in states:
        state = with_what_was_alive(found, stop.checkpoint, session.engine.writer)
        same = stop.checkpoint is not None and stop.checkpoint.root == state.root
        session.journal.append(
            Checkpoint(
                turn=state.turn, inner=state.inner, root=state.root, position=state.position,
                protection=Protection.INHERITED if same else Protection.DURABLE,
                processes=state.processes,
            ),
            turn=state.turn,
        )  # fmt: skip
        stop.bury(gap, state)
        stop.checkpoint = state
        stop.marks[state.turn] = max(stop.marks.get(state.turn, 0), state.inner)
        if state.turn == stop.turn:
            stop.inner = max(stop.inner, state.inner)
        if state.inner == 0:
            stop.turn_ended(state.turn, state.root)
    session.journal.sync()
    session.spool.clear()


def with_what_was_alive(state: State, before: State | None, writer: StoreWriter) -> State:
    """The state with what lies in its spool in the store; `before` is the one before it."""
    if not state.spool:
        return state
    processes = spooled.put(state.spool, before.processes if before else b"", writer)
    writer.sync()
    return dataclasses.replace(state, processes=processes, spool=b"")
