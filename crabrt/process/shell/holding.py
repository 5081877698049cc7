"""Whose a session is: started when it is needed, replaced when it ended, and ended with its owner.

A fork's child owns nothing. An owner that goes away without a word takes the session along; one
that is killed leaves it to whoever attaches.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from crabrt.core.config import runtime_directory
from crabrt.errors import UsageError
from crabrt.process.shell import launching
from crabrt.process.shell.errors import ShellUnavailable
from crabrt.process.shell.exchanging import OnOutput, Outcome, Wishes
from crabrt.process.shell.listening import Sink
from crabrt.process.shell.session import Session
from crabrt.process.shell.values import UNKNOWN_STATUS, ShellOptions, ShellResult


class Wanted(msgspec.Struct, frozen=True):
    """What kind of session is to be started.

    Attributes:
        options: see `ShellOptions`.
        env: variables on top of the loop's environment.
        isolation: ``auto``, or a form.
        base: where directories of channels are made; None: the user's runtime directory.
    """

    options: ShellOptions
    env: Mapping[str, str] | None
    isolation: str
    base: bytes | None


class Call(NamedTuple):
    """How a command is to be waited for.

    Attributes:
        timeout_s: None: the shell's own.
        on_output: gets live output.
        wishes: how other threads end it.
    """

    timeout_s: float | None
    on_output: OnOutput | None
    wishes: Wishes


Act = Callable[[Session, Sink, float], Outcome]
"""Does something in a session, with so many seconds' time."""


class Holding:
    """At most one session at a time. `turn` is held by whoever uses it; the rest needs no lock.

    Attributes:
        where: the shell's directory after its last command; where the next one starts.
        session: None while there is none.
        may_move: a session whose directory is gone starts in ``/``; else there is none.
        opening: gives a session where there is none, instead of a new one that it may begin; for
            whoever keeps sessions (see `ready`).
        uses: how often a session was asked for.
        within: a command that runs another one in the namespaces where sessions are to be.
    """

    def __init__(self, wanted: Wanted, where: bytes) -> None:
        self.turn = threading.RLock()
        self.where = where
        self.session: Session | None = None
        self.may_move = False
        self.opening: Callable[[Callable[[], Session]], Session] | None = None
        self.uses = 0
        self.within: tuple[str, ...] = ()
        self._wanted = wanted
        self._owner = os.getpid()
        self._is_closed = False
        self._note: str | None = None
        self._current: Wishes | None = None
        self._finalizer: weakref.finalize[[Session, int], Holding] | None = None

    def owned(self) -> Session | None:
        """The session, if there is one.

        Raises:
            UsageError: this is a forked child.
            ShellUnavailable: it has been closed.
        """
        if os.getpid() != self._owner:
            raise UsageError(
                "this shell belongs to the process that opened it, and this is a forked child",
                hint="open another shell here",
            )
        if self._is_closed:
            raise ShellUnavailable("this shell is closed", hint="open another")
        return self.session

    def ready(self) -> Session:
        """The session with a shell in it, begun or begun again if need be.

        Raises:
            UsageError: it is at a command of another loop.
            ShellUnavailable: there can be none.
        """
        session = self.owned()
        self._check_callback()
        self.uses += 1
        if session is not None and session.is_gone:
            session.close(0)
            session = self.session = None
            self._note = "the shell's whole session had ended; this is a new one"
        if session is not None and session.unclaimed is not None:
            raise UsageError(
                "this shell is at a command of the loop before", hint="wait for it: rejoin()"
            )
        if session is None:
            session = self._begin() if self.opening is None else self.opening(self._begin)
            self.hold(session)
        elif not session.shell_lives():
            if session.shell is not None:
                self._note = "the shell had ended; this is a new one, without its variables"
            session.begin(self.where)
        return session

    def _begin(self) -> Session:
        wanted = self._wanted
        is_known = self.may_move or self.within  # elsewhere, only the session can tell
        if not is_known and not os.path.isdir(self.where):
            raise ShellUnavailable("this is no directory", where=os.fsdecode(self.where))
        base = wanted.base or os.fsencode(runtime_directory())
        form = launching.choose(wanted.isolation)
        return Session.start(wanted.options, form, base, wanted.env, self.where, within=self.within)

    def forget(self) -> None:
        """The session was ended by somebody else, who may have another one in its place."""
        with self.turn:
            session, self.session = self.session, None
            if self._finalizer is not None:
                self._finalizer.detach()
            if session is not None:
                session.leave()

    def tell(self, note: str | None) -> None:
        """Whoever gets the next result is told this of the shell, a sentence."""
        self._note = note

    def _check_callback(self) -> None:
        """Whoever has the turn and finds a command running is called by that command's thread."""
        if self._current is not None:
            raise UsageError(
                "a callback of a command's output cannot use its own shell",
                hint="interrupt() is allowed",
            )

    def hold(self, session: Session) -> None:
        """Own `session`: it ends with this object, or the program, if nobody closes it before."""
        if self._finalizer is not None:
            self._finalizer.detach()
        self.session = session
        self.where, self.may_move = session.directory, True
        self._finalizer = weakref.finalize(self, _end_left_over, session, self._owner)

    def let_go(self) -> Session | None:
        """Own nothing any more."""
        with self.turn:
            self._check_callback()
            session, self.session, self._is_closed = self.session, None, True
            if self._finalizer is not None:
                self._finalizer.detach()
            return session

    def bequeath(self) -> Holding:
        """Own nothing any more; who owns the session now. Whatever command it is at is ended."""
        self._quit()
        with self.turn:
            heir = Holding(self._wanted, self.where)
            heir.within, heir.uses = self.within, self.uses
            if self.session is not None:
                heir.hold(self.session)  # first: an interrupt here may leave two owners, not none
            self.let_go()
        return heir

    def end(self, grace_s: float) -> tuple[int, ...]:
        """End the session and whatever command it is at; processes that could not be ended."""
        if os.getpid() != self._owner:
            return ()
        self._quit()
        session = self.let_go()
        return () if session is None else tuple(one.pid for one in session.close(grace_s))

    def _quit(self) -> None:
        """Nobody uses it any more, whoever does now."""
        if self.turn.acquire(blocking=False):  # nobody has it, or this very thread
            try:
                self._check_callback()
            finally:
                self.turn.release()
        self._is_closed = True
        self.interrupt(for_good=True)

    def interrupt(self, *, for_good: bool = False) -> None:
        """Interrupt the command that runs, if there is one, or end it."""
        current = self._current
        if current is not None:
            self.say(current.end if for_good else current.interrupt)

    def say(self, wish: threading.Event) -> None:
        """Make a wish, and wake who has to see to it."""
        wish.set()
        session = self.session
        if session is not None:
            session.wake()

    def result(
        self, session: Session, act: Act, call: Call, sink: Sink | None = None
    ) -> ShellResult:
        """What came of `act`.

        Args:
            session: which.
            act: what to do.
            call: how.
            sink: has its output already; None: a new one.
        """
        options = self._wanted.options
        is_live = call.on_output is not None
        sink = sink or Sink.of_size(options.output_limit_bytes, live=is_live)
        begun = time.monotonic()
        self._current = call.wishes
        try:
            limit_s = options.timeout_s if call.timeout_s is None else call.timeout_s
            outcome = act(session, sink, limit_s)
        finally:
            self._current = None
        self.where = session.directory
        notes, self._note = (self._note, _end_of(outcome, os.fsdecode(self.where))), None
        return ShellResult(
            output_bytes=sink.kept["output"].content(),
            error_bytes=sink.kept["errors"].content(),
            exit_status=_status(outcome),
            timed_out=outcome.timed_out,
            interrupted=outcome.interrupted,
            left_out_bytes=sum(one.left_out_bytes for one in sink.kept.values()),
            duration_ms=(time.monotonic() - begun) * 1000,
            cwd_bytes=self.where,
            note="; ".join(filter(None, notes)) or None,
        )


def _end_left_over(session: Session, owner: int) -> None:
    if os.getpid() == owner:
        session.close(0)


def _end_of(outcome: Outcome, where: str) -> str | None:
    if outcome.report is not None:
        return None
    if outcome.refused:
        return (
            "the shell did not take the command, which was not run, and was ended; does "
            f"PROMPT_COMMAND read its input? The next command starts a new one in {where}"
        )
    if outcome.mute:
        return (
            "the command took from the shell what it needs to report, so the shell was ended: the "
            f"next command starts a new one in {where}"
        )
    what = "the shell's whole session" if outcome.is_gone else "the shell"
    status = "" if outcome.ended is None else f" with status {outcome.ended}"
    return (
        f"{what} ended{status}: the next command starts a new one in {where}, "
        "without its variables, functions and options"
    )


def _status(outcome: Outcome) -> int:
    if outcome.report is not None:
        return outcome.report.status
    return UNKNOWN_STATUS if outcome.ended is None else outcome.ended
