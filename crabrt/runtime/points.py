"""Checkpoints and rollbacks that the loop itself asks for.

Both are steps (``waits``): `Run.checkpoint` and `Run.rollback` block on them, `Run.acheckpoint` and
`Run.arollback` await them.
"""

from __future__ import annotations

from crabrt.core.entries import Labelled, RolledBack
from crabrt.core.ids import ObjectId, valid_name
from crabrt.core.targets import TurnRef
from crabrt.errors import Unprotected, UsageError
from crabrt.journal import RunIndex
from crabrt.process.revivals import Revival
from crabrt.process.sighting import Sighting
from crabrt.runtime import company, unclosed
from crabrt.runtime.engine import Fate
from crabrt.runtime.golive import go_live
from crabrt.runtime.putback import tell_restored
from crabrt.runtime.session import Session
from crabrt.runtime.waits import Steps, Wait
from crabrt.workspace import RestoreReport, restore
from crabrt.workspace.restoring import Beside


def checked_label(label: str | None) -> str | None:
    """`label`, if it may be one.

    Raises:
        UsageError: it may not.
    """
    if label is not None and not valid_name(label):
        raise UsageError(f"{label!r} may not be a label", hint="letters, digits, . _ -")
    return label


def check_turn(to: int) -> None:
    """Refuse what is no turn's number: the journal says for ever on which turn the next one began.

    Raises:
        UsageError: it is none.
    """
    if to < 0:
        raise UsageError(
            f"{to} is no turn to roll back to",
            hint="0 is the workspace as the run found it; run.turn is the open turn",
        )


def checkpoint(session: Session, label: str | None) -> Steps[str]:
    """Make a durable point inside the open turn; its target.

    Raises:
        UsageError: a tool is running.
        Unprotected: it cannot be made.
    """
    if not session.acting:
        yield from go_live(session)
    job = session.inner_checkpoint()
    if job is None:
        raise UsageError("a checkpoint can't be made while a tool is running")
    if not job.durable.done():
        yield Wait(job.durable)
    if job.fate is not Fate.CAPTURED or job.error is not None:
        raise Unprotected(
            f"the checkpoint failed: {job.error or 'it came too late'}", where=session.id
        )
    if label is not None:
        session.append(Labelled(job.turn, label, job.inner))
    return f"{session.id}@{job.turn}.{job.inner}"


def rollback(session: Session, to: int) -> Steps[int]:
    """Put the workspace back to the state after turn `to`, and open the next turn; its number.

    Raises:
        NotFound: that turn has no checkpoint.
        UsageError: a tool is running.
        Unprotected: the state could not be made durable.
    """
    if not session.acting:
        yield from go_live(session)
    yield from unclosed.goes_on(session, session.scope)
    with session.lock:
        if session.machine.running:
            raise UsageError("a rollback can't be made while a tool is running")
        job = session.close_turn()
    if job is not None and not job.durable.done():
        yield Wait(job.durable)
    future = session.engine.submit(lambda: _put_back(session, to))
    if not future.done():
        yield Wait(future)
    root, report, revival = future.result()
    with session.lock:
        session.root = session.turn_start = root
        session.append(RolledBack(to, root))
        session.machine.close()
        session.open_turn(base=to)
        job = session.inner_checkpoint()
    tell_restored(
        session, report, session.machine.turn, doing="the rollback",
        theirs="changed by somebody else, overwritten",
    )  # fmt: skip
    company.tell(session, revival, doing="the rollback")
    if job is not None and not job.durable.done():
        yield Wait(job.durable)
    if job is None or job.fate is not Fate.CAPTURED or job.error is not None:
        raise Unprotected("the state rolled back to could not be made durable", where=session.id)
    return session.machine.turn


def _put_back(session: Session, to: int) -> tuple[ObjectId, RestoreReport, Revival]:
    engine = session.engine
    with RunIndex.open(engine.config.home) as index:
        index.refresh()
        row = index.checkpoint(session.id, TurnRef(turn=to))

    def files(beside: Beside | None) -> RestoreReport:
        return restore(
            engine.workspace, engine.writer, row.root, base=session.root, force=True,
            label=f"rollback of {session.id} to {to}", tracker=engine.tracker, beside=beside,
        )  # fmt: skip

    def alive() -> Sighting:
        return engine.custody.look(()) or Sighting()

    report, revival = company.put_back(session, row.processes, files, alive)
    return row.root, report, revival
