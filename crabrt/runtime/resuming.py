"""How a run is taken up again: workspace to C, record at hand, and the loop may be re-entered.

SEMANTICS "Resume". C is the last checkpoint that is, or can still be made, durable (`captures`). If
the disk already is the state, the run goes on from it (`inplace`); else the workspace is put back
to C, or to what a child run knew last (`reverting`, `newest`).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

import msgspec

from crabrt.core.entries import Resumed
from crabrt.core.ids import RunId
from crabrt.errors import NotResumable
from crabrt.inspector import caches, shell
from crabrt.journal import Journal, Lease, RunIndex, read_journal, run_dir
from crabrt.runtime import company, registry, upkeep
from crabrt.runtime.captures import finish_captures
from crabrt.runtime.inplace import checkpoint_here, disk_is_the_state
from crabrt.runtime.opening import Setup, command_line, open_engine
from crabrt.runtime.putback import tell_recovered, tell_restored
from crabrt.runtime.recovery import State, Stop, find_stop
from crabrt.runtime.relatives import dead_relatives, family_externals
from crabrt.runtime.replay import Replay
from crabrt.runtime.reverting import may_be_own, put_back
from crabrt.runtime.session import Session


def attach(setup: Setup, run_id: RunId, family: str) -> Session:
    """Take up the run `run_id`, whose workspace is the one in `setup`.

    Raises:
        RunBusy, WorkspaceBusy: somebody alive has it.
        NotResumable: there is nothing durable to go on from, or it cannot be replayed.
        DamagedJournal, DamagedObject: what is needed cannot be read.
    """
    directory = run_dir(setup.config.home, run_id)
    lease = Lease.acquire(directory)
    try:
        dead = {run_id, *dead_relatives(setup.config.home, family)}
        engine = open_engine(_still_excluding(setup, run_id), family)
    except BaseException:
        lease.release()
        raise
    with ExitStack() as undo:
        undo.callback(lease.release)
        undo.callback(engine.close)
        journal = Journal.open(directory, lease)
        undo.callback(journal.close)
        session = Session(run_id, setup.name, family, engine, journal=journal, lease=lease)
        _take_up(session, directory, dead)
        undo.pop_all()
    tell_recovered(session)
    registry.add(session)
    engine.run_aside(shell.available)
    upkeep.begin(engine)
    return session


def attach_child(setup: Setup, parent: Session, run_id: RunId) -> Session:
    """Take up a child run of `parent`, whose call to it is open. The workspace is at its state."""
    engine = parent.engine.share()
    directory = run_dir(setup.config.home, run_id)
    try:
        lease = Lease.acquire(directory)
    except BaseException:
        engine.close()
        raise
    with ExitStack() as undo:
        undo.callback(lease.release)
        undo.callback(engine.close)
        journal = Journal.open(directory, lease)
        undo.callback(journal.close)
        session = Session(run_id, setup.name, parent.family, engine, journal=journal, lease=lease)
        session.parent, session.moment_ns = parent, parent.moment_ns
        session.expected = parent.expected
        stop = find_stop(read_journal(directory))
        finish_captures(session, stop)
        _set_state(session, directory, stop, stop.checkpoint, "restored")
        undo.pop_all()
    registry.add(session)
    return session


def _still_excluding(setup: Setup, run_id: RunId) -> Setup:
    """`setup`, which excludes what the run ever did: its states say nothing of that."""
    with RunIndex.open(setup.config.home) as index:
        index.refresh()
        recorded = index.find(run_id).view.exclude
    exclude = tuple(dict.fromkeys((*recorded, *setup.config.exclude)))
    config = msgspec.structs.replace(setup.config, exclude=exclude)
    return dataclasses.replace(setup, config=config)


def _take_up(session: Session, directory: Path, dead: Collection[str]) -> None:
    stop = find_stop(read_journal(directory))
    finish_captures(session, stop)
    _refuse_unreplayable(session, stop)
    engine = session.engine
    engine.submit(lambda: engine.tracker.load(engine.store)).result()
    state = stop.checkpoint
    if state is not None:
        session.root, session.turn_start = state.root, stop.turn_start
        session.root_turn = state.turn if state.inner == 0 else state.turn - 1
    alive = company.left_by(session, dead)
    before = company.wanted(session, state.processes if state is not None else b"")
    if disk_is_the_state(stop, engine.workspace, engine.config.home) and (
        company.all_there(
            before,
            alive,
            read_journal(directory),
            state.position if state is not None else 0,
            may_start=engine.config.respawn == "always",
        )
    ):
        company.keep(session, before, alive, read_journal(directory))
        state = checkpoint_here(session, stop, before) or state
        _set_state(session, directory, stop, state, "in-place")
        return
    if state is None:
        raise NotResumable(
            "it was stopped before its first checkpoint was durable", where=session.id,
            hint="start it again",
        )  # fmt: skip
    report, revival = put_back(session, stop, state, alive)
    _set_state(session, directory, stop, state, "restored")
    company.tell(session, revival, doing="the resume")
    own = may_be_own(stop, state.position, engine.config.home)
    theirs = None if own else "changed by somebody else, overwritten"
    tell_restored(session, report, state.turn, doing="the resume", theirs=theirs)


def _set_state(
    session: Session, directory: Path, stop: Stop, state: State | None, mode: str
) -> None:
    if mode == "in-place":
        position = session.journal.seq
    else:
        position = state.position if state is not None else 0
        if session.moment_ns is not None:
            position = max(position, stop.position_at(session.moment_ns))
    turn = state.turn if state is not None else 0
    exclude = caches.left_out(session.engine.config)
    session.append(Resumed(mode, turn, position, os.getpid(), command_line(), exclude))
    session.engine.writer.sync()
    session.journal.sync()
    if state is not None:
        session.root = state.root
        session.turn_start = state.root if state.inner == 0 else stop.began_on
        session.root_turn = state.turn if state.inner == 0 else state.turn - 1
    session.began_on = stop.began_on
    session.inner_marks = stop.marks | {stop.turn: stop.inner}
    session.replay = Replay(
        read_journal(directory), position, family_externals(session, session.engine.config.home)
    )
    session.acting = False


def _refuse_unreplayable(session: Session, stop: Stop) -> None:
    if stop.tool_calls == 0 and stop.changed_files:
        raise NotResumable(
            "its files changed, but it recorded no tool calls: a replay would do again what"
            " nobody recorded",
            where=session.id,
            hint=f"its files can be restored: crab restore {session.id}; to resume such a loop,"
            " wrap what acts with crabrt.tool",
        )
    if stop.buried_gap is not None:
        last = stop.unburied
        named = f"{session.id}@{last.name}" if last is not None else ""
        raise NotResumable(
            f"entries are missing, as the store could not be written: {stop.buried_gap}",
            where=session.id,
            hint=f"the last turn before them: `crab resume {named}`" if named else "start it again",
        )
