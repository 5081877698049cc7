"""``on_divergence="branch"``: where a resumed loop goes another way, a new run goes on from there.

The branch's history is everything before the call that differs. Its files must be of that moment: a
checkpoint with no tool call between it and the divergence. Where there is none (the loop went
another way in the middle of a turn whose tools had already run), the divergence stops the run.
"""

from __future__ import annotations

from crabrt.core.entries import Captured, Checkpoint, Forked, Intent, Lineage, Noted
from crabrt.core.ids import ObjectId, RunId, new_run_id
from crabrt.journal import Journal, Lease, fork_journal, read_journal, run_dir
from crabrt.runtime import registry
from crabrt.runtime.recovery import State
from crabrt.runtime.replay import Replay, Sealed
from crabrt.runtime.session import Session


def branch(session: Session, sealed: Sealed) -> bool:
    """Make `session` a new run that goes on instead of the recorded call `sealed`.

    Returns:
        Whether there is a state to branch from.

    Raises:
        CrabError: the new run cannot be written.
    """
    cut = sealed.opened_seq - 1
    found = _state_at(session, cut)
    if found is None:
        return False
    state, chain = found
    home, parent, run = session.engine.config.home, session.id, new_run_id(session.name)
    forked = Forked(
        run=run,
        name=session.name,
        workspace_path=session.engine.workspace.path,
        workspace_id=session.engine.workspace.id,
        lineage=Lineage(session.family, parent=parent, seq=cut, chain=chain),
        turn=max(state.turn, session.machine.turn),
    )
    directory = run_dir(home, run)
    fork_journal(run_dir(home, RunId(parent)), directory, upto=cut, forked=forked)
    lease = Lease.acquire(directory)
    try:
        journal = Journal.open(directory, lease)
    except BaseException:
        lease.release()
        raise
    # The checkpoint's own entry may lie behind the cut.
    entry = Checkpoint(
        state.turn, state.inner, state.root, state.position, processes=state.processes
    )
    journal.append(entry, turn=state.turn)
    journal.append(Noted("branch", f"diverged from {parent} at {sealed.call}"), turn=state.turn)
    journal.sync()
    _become(session, run, journal, lease, state)
    return True


def _state_at(session: Session, cut: int) -> tuple[State, bytes] | None:
    """The last checkpoint before `cut`, if no tool ran since; and the chain hash at `cut`."""
    state, chain, tool_seq = None, b"", 0
    directory = run_dir(session.engine.config.home, RunId(session.id))
    for record in read_journal(directory):
        body, seq = record.body, record.entry.seq
        if seq == cut:
            chain = record.chain
        if isinstance(body, Intent) and seq <= cut:
            tool_seq = seq
        if (
            isinstance(body, Captured | Checkpoint)
            and (state.position if state is not None else 0) <= body.position <= cut
        ):
            processes = body.processes if isinstance(body, Checkpoint) else b""
            root = ObjectId(body.root)
            state = State(body.turn, body.inner, root, body.position, processes)
    if state is None or state.position < tool_seq:
        return None
    return state, chain


def _become(session: Session, run: RunId, journal: Journal, lease: Lease, state: State) -> None:
    registry.remove(session)
    session.journal.close()
    session.lease.release()
    with session.lock:
        session.id, session.journal, session.lease = run, journal, lease
        session.root = session.expected = state.root
        if state.inner == 0:
            session.root_turn, session.turn_start = state.turn, state.root
        known = session.replay.externals if session.replay is not None else []
        session.replay = Replay((), 0, known)
        session.acting = False
        session.messages.forget()
    registry.add(session)
