"""How a run is taken up again: workspace to C, record at hand, and the loop may be re-entered.

SEMANTICS "Resume". C is the last checkpoint that is, or can still be made, durable. Shortcut: if
the boot is the same, no tool was running, and nobody else has touched the workspace's history
since, the disk already is the state: it is scanned, checkpointed, and gone on from.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec

from crabrt.core.clock import boot_id
from crabrt.core.entries import Checkpoint, Lineage, Noted, Resumed
from crabrt.core.ids import ObjectId, RunId
from crabrt.core.verdicts import Protection
from crabrt.errors import CrabError, NotResumable, Unprotected
from crabrt.inspector import caches, shell
from crabrt.journal import Journal, Lease, RunIndex, RunRow, lease_holder, read_journal, run_dir
from crabrt.operations.restoring import last_known, runs_here
from crabrt.runtime import checkpoints, registry, upkeep
from crabrt.runtime.engine import Fate, Job
from crabrt.runtime.opening import Setup, command_line, open_engine
from crabrt.runtime.orphans import stop_orphans
from crabrt.runtime.putback import tell_recovered, tell_restored
from crabrt.runtime.recovery import State, Stop, find_stop
from crabrt.runtime.replay import Replay, Sealed
from crabrt.runtime.session import Session
from crabrt.store import Store
from crabrt.workspace import RestoreLog, RestoreReport, Workspace, restore


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
        dead = {run_id, *_dead_relatives(setup, family)}
        orphans = stop_orphans(dead, lambda run: _is_live(setup.config.home, run))
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
        _take_up(session, directory)
        undo.pop_all()
    tell_recovered(session)
    for orphan in orphans:
        session.append(Noted("orphan", f"stopped {orphan.pid}: {orphan.command}"))
    registry.add(session)
    engine.run_aside(shell.available)
    upkeep.begin(engine)
    return session


def _still_excluding(setup: Setup, run_id: RunId) -> Setup:
    """`setup`, which excludes what the run ever did: its states say nothing of that."""
    with RunIndex.open(setup.config.home) as index:
        index.refresh()
        recorded = index.find(run_id).view.exclude
    exclude = tuple(dict.fromkeys((*recorded, *setup.config.exclude)))
    config = msgspec.structs.replace(setup.config, exclude=exclude)
    return dataclasses.replace(setup, config=config)


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
        _finish_captures(session, stop)
        _set_state(session, directory, stop, stop.checkpoint, "restored")
        undo.pop_all()
    registry.add(session)
    return session


def _take_up(session: Session, directory: Path) -> None:
    stop = find_stop(read_journal(directory))
    _finish_captures(session, stop)
    _refuse_unreplayable(session, stop)
    engine = session.engine
    engine.submit(lambda: engine.tracker.load(engine.store)).result()
    state = stop.checkpoint
    if state is not None:
        session.root, session.turn_start = state.root, stop.turn_start
        session.root_turn = state.turn if state.inner == 0 else state.turn - 1
    if disk_is_the_state(stop, engine.workspace, engine.config.home):
        state = _checkpoint_here(session, stop) or state
        _set_state(session, directory, stop, state, "in-place")
        return
    if state is None:
        raise NotResumable(
            "it was stopped before its first checkpoint was durable", where=session.id,
            hint="start it again",
        )  # fmt: skip
    report = _put_back(session, stop, state)
    _set_state(session, directory, stop, state, "restored")
    # What tools of this run did behind C cannot be told from what somebody did since.
    own = stop.open_tools or stop.gap is not None or stop.last_tool_seq > state.position
    theirs = None if own else "changed by somebody else, overwritten"
    tell_restored(session, report, state.turn, doing="the resume", theirs=theirs)


def _put_back(session: Session, stop: Stop, state: State) -> RestoreReport:
    """Restore C, or the newer state of a child run that was going on."""
    engine = session.engine
    newest = _newest(engine.store, engine.config.home, stop)
    root = newest.root if newest is not None else state.root
    base = _last_known(engine.workspace, engine.config.home) or root
    report = engine.submit(
        lambda: restore(
            engine.workspace, engine.writer, root, base=base, force=True,
            label=f"resume {session.id}", tracker=engine.tracker,
        )
    ).result()  # fmt: skip
    session.expected = root
    session.moment_ns = newest.moment_ns if newest is not None else None
    return report


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
        session.turn_start = state.root if state.inner == 0 else stop.turn_start
        session.root_turn = state.turn if state.inner == 0 else state.turn - 1
    session.inner_marks = stop.marks | {stop.turn: stop.inner}
    session.replay = Replay(
        read_journal(directory), position, _family_externals(session, session.engine.config.home)
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
        raise NotResumable(
            f"entries are missing, as the store could not be written: {stop.buried_gap}",
            where=session.id, hint="resume from an earlier turn: RUN@T",
        )  # fmt: skip


def _finishable(store: Store, stop: Stop) -> list[tuple[State, str | None]]:
    """Captures that are all there, whose process died before they were durable; in their order.

    With each, what was missing when it was made.
    """
    found: list[tuple[State, str | None]] = []
    base = stop.checkpoint.root if stop.checkpoint is not None else None
    for state, gap in stop.unfinished:
        if checkpoints.whole(store, state.root, base):
            found.append((state, gap))
            base = state.root
    return found


def _last_state(store: Store, stop: Stop) -> State | None:
    """C: the last state that is durable, or can be made so."""
    states = _finishable(store, stop)
    return states[-1][0] if states else stop.checkpoint


def state_to_restore(stop: Stop, store: Store, home: Path) -> State | None:
    """What a run that stopped so puts the workspace to if it does not go on in place; C, mostly.

    Raises:
        DamagedJournal: that of a child run is broken.
        StoreUnavailable: something cannot be read.
    """
    state = _last_state(store, stop)
    newest = _newest(store, home, stop)
    if state is None or newest is None:
        return None
    return dataclasses.replace(state, root=newest.root)


def _finish_captures(session: Session, stop: Stop) -> None:
    """Commit such captures."""
    states = _finishable(session.engine.store, stop)
    stop.unfinished.clear()
    if not states:
        return
    session.engine.writer.sync()
    for state, gap in states:
        same = stop.checkpoint is not None and stop.checkpoint.root == state.root
        session.journal.append(
            Checkpoint(
                turn=state.turn, inner=state.inner, root=state.root, position=state.position,
                protection=Protection.INHERITED if same else Protection.DURABLE,
            ),
            turn=state.turn,
        )  # fmt: skip
        stop.checkpoint, stop.buried_gap = state, stop.buried_gap or gap
        stop.marks[state.turn] = max(stop.marks.get(state.turn, 0), state.inner)
        if state.turn == stop.turn:
            stop.inner = max(stop.inner, state.inner)
        if state.inner == 0:
            stop.turn_start = state.root
    session.journal.sync()


def disk_is_the_state(stop: Stop, workspace: Workspace, home: Path) -> bool:
    """Whether a run that stopped so goes on from the workspace as it is (the shortcut).

    Raises:
        DamagedJournal: the workspace's log of restores is broken.
        StoreUnavailable: something cannot be read.
    """
    if stop.open_tools or stop.gap is not None or stop.boot != boot_id() or boot_id() == "unknown":
        return False
    if stop.seq == stop.forked_seq:  # never taken up: the disk is as its parent left it
        return False
    restored = RestoreLog(workspace.state_dir).last_end_root()
    if restored is not None and restored[1] > stop.wall_ns:
        return False
    newest = _newest_run(home, workspace)
    return newest is None or newest.run == stop.run or newest.view.root_ns <= stop.wall_ns


def _checkpoint_here(session: Session, stop: Stop) -> State | None:
    """Checkpoint the workspace as it is; None where nothing changed."""
    engine, state = session.engine, stop.checkpoint
    if state is not None:
        scan = engine.submit(engine.tracker.scan).result()
        if scan.clean and engine.tracker.root == state.root:
            return None
    turn, inner = _place(stop)
    job = Job(turn, inner, session.journal.seq)
    calls = stop.outside.get(turn, ())
    engine.capture(job, lambda: checkpoints.make(session, job, calls))
    job.durable.result()
    if job.fate is not Fate.CAPTURED or job.error is not None or session.root is None:
        raise Unprotected(
            f"what is on the disk cannot be checkpointed: {job.error}", where=session.id,
            hint="make room, then resume",
        )  # fmt: skip
    if turn == stop.turn:
        stop.inner = max(stop.inner, inner)
    return State(turn, inner, session.root, job.position)


def _place(stop: Stop) -> tuple[int, int]:
    """Which checkpoint the disk is, in a run that stopped there: turn, and point inside it."""
    ended = stop.turn if stop.ended is not None else stop.turn - 1
    last = stop.checkpoint
    done = last is not None and (  # a point `ended.n` lies before the end of that turn
        last.turn > ended or (last.turn == ended and last.inner == 0)
    )
    if stop.turn == 0 or (not done and not stop.turn_had_tools):
        return max(ended, 0), 0
    return stop.turn, stop.inner + 1


class Newest(NamedTuple):
    """The newest state of a workspace that a run and its children know, and of which moment."""

    moment_ns: int
    root: ObjectId


def _newest(store: Store, home: Path, stop: Stop) -> Newest | None:
    """C, or a newer state of a child run that was going on: they share one directory."""
    state = _last_state(store, stop)
    found = [] if state is None else [Newest(stop.moment_of(state), state.root)]
    for child in stop.children:
        inside = run_dir(home, child)
        if inside.is_dir():
            below = _newest(store, home, find_stop(read_journal(inside)))
            found += [] if below is None else [below]
    return max(found, default=None)


def _last_known(workspace: Workspace, home: Path) -> ObjectId | None:
    """The state that the owner of the workspace last knew: a checkpoint or the end of a restore."""
    with RunIndex.open(home) as index:
        index.refresh()
        return last_known(index, workspace)


def _newest_run(home: Path, workspace: Workspace) -> RunRow | None:
    """The run whose checkpoint of this workspace is the newest."""
    with RunIndex.open(home) as index:
        index.refresh()
        rows = [row for row in runs_here(index, workspace) if row.view.root is not None]
    return max(rows, key=lambda row: row.view.root_ns, default=None)


def _family_externals(session: Session, home: Path) -> Iterator[Sealed]:
    """Sealed external calls of the other runs of the family: none is ever made twice."""
    with RunIndex.open(home) as index:
        index.refresh()
        lineages = {
            row.run: row.view.lineage for row in index.runs() if row.family == session.family
        }
    mine = _calls_down(lineages, session.id)
    for run in lineages:
        if run == session.id or _calls_down(lineages, run) != mine:
            continue  # another child's calls only look alike
        try:
            yield from Replay(read_journal(run_dir(home, RunId(run))), 0).externals
        except CrabError as error:
            session.append(Noted("family", f"the external calls of {run} cannot be read: {error}"))


def _calls_down(lineages: Mapping[str, Lineage], run: str) -> tuple[str, ...]:
    """The calls that lead from the family's agent down to `run`; none for itself and its forks."""
    calls: list[str] = []
    at: str | None = run
    seen: set[str] = set()
    while at is not None and at in lineages and at not in seen:
        seen.add(at)
        if lineages[at].call is not None:
            calls.append(str(lineages[at].call))
        at = lineages[at].parent
    return tuple(calls)


def _dead_relatives(setup: Setup, family: str) -> list[str]:
    """Runs of the family whose owner is gone: what they left behind may write to the same files."""
    home = setup.config.home
    with RunIndex.open(home) as index:
        index.refresh()
        runs = [row.run for row in index.runs() if row.family == family]
    return [run for run in runs if not _is_live(home, run)]


def _is_live(home: Path, run: str) -> bool:
    return lease_holder(run_dir(home, RunId(run))) is not None
