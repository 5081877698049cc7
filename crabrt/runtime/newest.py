"""The newest state of a workspace that a run and its children know: they share one directory.

A child run that was going on when the process died has checkpoints of its own, and perhaps newer
ones than C.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

from crabrt.core.ids import ObjectId
from crabrt.journal import read_journal, run_dir
from crabrt.runtime.captures import finishable, last_state, with_what_was_alive
from crabrt.runtime.recovery import State, Stop, find_stop
from crabrt.store import Store, StoreWriter


class Newest(NamedTuple):
    """The newest state of a workspace that a run and its children know, and of which moment."""

    moment_ns: int
    root: ObjectId
    processes: bytes


def newest_state(
    store: Store, home: Path, stop: Stop, writer: StoreWriter | None = None
) -> Newest | None:
    """C, or a newer state of a child run that was going on: they share one directory.

    With a `writer`, what was alive in it is in the store afterwards, else perhaps in a spool.
    """
    state = last_state(store, stop)
    if writer is not None and state is not None and state.spool:
        state = stop.checkpoint
        for captured, _ in finishable(store, stop):
            state = with_what_was_alive(captured, state, writer)
    found = []
    if state is not None:
        found.append(Newest(stop.moment_of(state), state.root, state.processes))
    for child in stop.children(home):
        below = newest_state(store, home, find_stop(read_journal(run_dir(home, child))), writer)
        found += [] if below is None else [below]
    return max(found, default=None)


def state_to_restore(stop: Stop, store: Store, home: Path) -> State | None:
    """What a run that stopped so puts the workspace to if it does not go on in place; C, mostly.

    Raises:
        DamagedJournal: that of a child run is broken.
        StoreUnavailable: something cannot be read.
    """
    state = last_state(store, stop)
    newest = newest_state(store, home, stop)
    if state is None or newest is None:
        return None
    return dataclasses.replace(state, root=newest.root, processes=newest.processes)
