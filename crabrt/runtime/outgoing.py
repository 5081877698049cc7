"""Output commit: what is durable before a call leaves the machine, and what follows when it has.

What a resume would do again must not have been seen outside: else the world knows one outcome, and
the loop another. So before such a call, what tools have done in its turn is checkpointed at a
*point* inside the turn; and a point follows it. A point can only be had while no tool runs: what
runs will run again, from its beginning, on a state without half of its work.

Parallel tools are waited for, but not for ever: one of them may be waiting for this very call. What
then acts without a point says so. See ``docs/design/0012-what-leaves-the-machine.md``.
"""

from __future__ import annotations

import threading
import time

from crabrt.core.entries import CallId, External, Noted
from crabrt.core.verdicts import ExternalKind
from crabrt.runtime.session import Session
from crabrt.runtime.waits import Steps, Wait

TOPIC = "output commit"
"""Of the note that a call left the machine before all it may depend on was durable."""


def before(
    session: Session, call: CallId, declared: External | None, *, nested: bool
) -> Steps[None]:
    """Hold `call` until everything that it may depend on is durable.

    Args:
        session: the run.
        call: is about to leave the machine, or is taken for one that does.
        declared: what it was declared to do; None: it is only taken for external. That stops it
            never, and keeps it waiting for the disk alone.
        nested: it is made inside of another tool, which cannot end before it.

    Raises:
        NotDurable: it cannot be made durable, and the configuration says to stop then.
        Unprotected: another tool keeps running meanwhile, and the run is strict.
    """
    if session.machine.tool_finished and session.inner_checkpoint() is None:
        only_reads = declared is not None and declared.kind is ExternalKind.READ
        if declared is not None and not nested and not only_reads:
            yield from _point(session)
        if session.machine.unsaved and not only_reads:
            _say(session, call, declared)
    yield from session.durable_gate(guessed=declared is None)


def after(session: Session) -> None:
    """A tool has ended: if a point is owed, ask for it as soon as no other tool runs."""
    with session.lock:
        if session.machine.owes_point:
            session.inner_checkpoint()


def look_closer(session: Session) -> Steps[None]:
    """Have the network watched more closely before a call that is taken for external.

    That reads all of ``/proc`` and opens perf events, which is nothing for an event loop's thread.
    """
    limit_s, late = session.engine.config.gate_limit_ms / 1e3, threading.Event()

    def look() -> None:
        if not late.is_set():
            session.reaching.sharpen()

    looking = session.engine.run_aside(look)
    if looking.done() or (yield Wait(looking, limit_s)):
        looking.result()
    else:
        late.set()
        session.reaching.missed()


def _point(session: Session) -> Steps[None]:
    """Wait for a moment when no tool runs, and ask for a point then.

    As long as a gate waits, and once a turn: a tool that waits for this call ends no sooner the
    next time.
    """
    limit_s = session.engine.config.gate_limit_ms / 1e3
    until_s, turn = time.monotonic() + limit_s, session.machine.turn
    while session.machine.unsaved and session.impatient_in != turn:
        with session.lock:
            quiet = session.machine.quiet()
        left_s = max(0.0, until_s - time.monotonic())
        if not quiet.done() and not (yield Wait(quiet, left_s)):
            session.impatient_in = turn
        session.inner_checkpoint()


def _say(session: Session, call: CallId, declared: External | None) -> None:
    """That the call acts without a point: in the turn, and to the loop if it was declared.

    Raises:
        Unprotected: the run is strict.
    """
    turn, name = session.machine.turn, call.callable
    text = (
        f"{name} leaves the machine while another tool runs: what tools have done in this turn is"
        f" not durable yet, and a resume from before would do that again, but not {name}"
    )
    session.append(Noted(TOPIC, text))
    if declared is not None:
        session.losses.add(f"turn {turn}: {text}")
        session.tell()
