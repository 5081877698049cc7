"""The end of a replay: the loop asks for something the record does not answer.

Before the first call acts, the workspace is put back to the checkpoint if the loop's own code, run
again from its start, has written to it. A call that is not the recorded one stops the run with a
readable diff, or becomes a branch.
"""

from __future__ import annotations

import dataclasses
from typing import NoReturn

from crabrt.core.entries import CallId, Noted
from crabrt.core.ids import ObjectId
from crabrt.errors import Diverged
from crabrt.operations.alive import written_by
from crabrt.process.sighting import Sighting
from crabrt.runtime.branching import branch
from crabrt.runtime.payloads import payload_bytes, read_messages
from crabrt.runtime.putback import tell_restored
from crabrt.runtime.replay import Sealed
from crabrt.runtime.requests import Asked, difference
from crabrt.runtime.session import Session
from crabrt.runtime.waits import Steps, Wait
from crabrt.workspace import RestoreReport, restore

_HINT = (
    "State that a wrapped function keeps elsewhere (globals, caches, the network) is not rebuilt by"
    " a replay; what varies from run to run belongs in crabrt.now(), crabrt.random() or"
    " crabrt.recorded(). Where requests carry ids or times of their own, as a framework's messages"
    " may, key= of the model or tool says what counts."
)


def go_live(session: Session) -> Steps[None]:
    """Compare the workspace with the checkpoint, put it back, and let the run act.

    Raises:
        Diverged: it is a child run that had ended here, and the workspace is past that.
        CrabError: the workspace cannot be put back.
    """
    if session.over:
        raise Diverged(
            "the loop makes a call in a child run that had ended here before", _HINT,
            where=session.id,
        )  # fmt: skip
    report = yield from _put_back_once(session)
    if report is not None and report.changes:
        # All of it is the loop's own work: none of it is a conflict with somebody else.
        alone = dataclasses.replace(report, conflicts=())
        turn = session.machine.turn
        tell_restored(session, alone, turn, doing="the end of the replay", theirs=None)
        session.append(
            Noted(
                "loop-wrote",
                "written by the loop itself while it was replayed; put back to the checkpoint",
                tuple(change.path for change in report.changes),
            )
        )


def may_act(session: Session) -> Steps[None]:
    """Before a tool acts: wait for what is being put back, for whichever run."""
    while (under_way := session.engine.put_backs.before_a_tool()) is not None:
        yield Wait(under_way)


def _put_back_once(session: Session) -> Steps[RestoreReport | None]:
    """Have the workspace put back, unless that is under way; the report, for whoever began it."""

    def wanted(acted: bool) -> bool:  # noqa: FBT001 - its only argument
        return not session.acting and not (acted and session.parent is not None)

    future, began = session.engine.put_backs.join(
        session.id, lambda: session.engine.submit(lambda: _put_back(session)), wanted
    )
    if future is not None and not future.done():
        yield Wait(future)
    report = None if future is None else future.result()
    upwards: Session | None = session
    while upwards is not None:  # what a child run does is its callers' doing
        upwards.acting = True
        upwards = upwards.parent
    return report if began else None


def _put_back(session: Session) -> RestoreReport | None:
    """Undo what loops wrote while they were replayed.

    What the run's own processes have open to write to is their work.
    """
    engine = session.engine
    target = session.expected or session.root
    if target is None:
        return None
    scan = engine.tracker.scan()
    if scan.clean and engine.tracker.root == target:
        return None
    paths: tuple[bytes, ...] = ()
    theirs = _written_by_processes(session)
    if theirs:
        plan = _restore(session, target, dry_run=True)
        paths = tuple(change.path for change in plan.changes if change.path not in theirs)
        if not paths:
            return None
    return _restore(session, target, paths)


def _written_by_processes(session: Session) -> frozenset[bytes]:
    """The files of the workspace that processes of the run have open for writing; relative."""
    engine = session.engine
    alive = engine.custody.look(()) or Sighting()
    return written_by((one.pid for one in alive.processes), engine.workspace.path)


def _restore(
    session: Session, target: ObjectId, paths: tuple[bytes, ...] = (), *, dry_run: bool = False
) -> RestoreReport:
    engine = session.engine
    return restore(
        engine.workspace,
        engine.writer,
        target,
        base=target,
        paths=paths,
        force=True,
        dry_run=dry_run,
        label=f"{session.id}: written by the loop itself",
        tracker=engine.tracker,
    )


def diverge(session: Session, call: CallId, asked: Asked, sealed: Sealed) -> Steps[None]:
    """The loop makes `call` where `sealed` was recorded: stop, or branch if that is asked for.

    Raises:
        Diverged: unless a branch was asked for and could be made here.
    """
    if session.engine.config.on_divergence == "branch":
        future = session.engine.submit(lambda: branch(session, sealed))
        if not future.done():
            yield Wait(future)
        if future.result():
            return
    raise Diverged(
        _message(call, sealed),
        _diff(session, call, asked, sealed),
        where=f"{session.id}@{sealed.turn}",
    )


def stop_diverged(session: Session, call: CallId, sealed: Sealed) -> NoReturn:
    """The loop asks for a recorded value where `sealed` was recorded.

    Raises:
        Diverged: always.
    """
    where = f"{session.id}@{sealed.turn}"
    raise Diverged(_message(call, sealed), f"-{sealed.call}\n+{call}\n{_HINT}", where=where)


def _message(call: CallId, sealed: Sealed) -> str:
    if call != sealed.call:
        return f"the loop calls {call}, where it called {sealed.call} before"
    return f"the loop calls {call} with another request than before"


def _diff(session: Session, call: CallId, asked: Asked, sealed: Sealed) -> str:
    if call.name != sealed.call.name:
        return f"--- recorded\n+++ asked now\n-{sealed.call}\n+{call}\n{_HINT}"
    before = payload_bytes(sealed.arguments, session.engine.store) or b"\xc0"
    parts = [difference(before, asked.arguments)]
    if asked.messages is not None and sealed.messages is not None:
        parts.append(_message_diff(session, asked, sealed))
    text = "\n".join(part for part in parts if part)
    return f"{text or '(the requests differ only in what is not shown)'}\n{_HINT}"


def _message_diff(session: Session, asked: Asked, sealed: Sealed) -> str:
    recorded = list(read_messages(sealed.messages, session.engine.store)) if sealed.messages else []
    now = [message.encoded for message in asked.messages or ()]
    for i, (old, new) in enumerate(zip(recorded, now, strict=False)):
        if old != new:
            shown = difference(old, new)
            if shown:
                return f"message {i}:\n{shown}"
    if len(recorded) != len(now):
        return f"recorded {len(recorded)} messages, asked with {len(now)}"
    return ""
