"""One command, from the lines that are sent to the report that comes back, or to what came instead.

A report can be lost: an interrupt that comes late drops its line, and a user may define a function
called ``builtin``. So a shell that sits at its prompt and has not reported is asked once more, then
repaired, then given up. That takes seconds, and no command waits for ever.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from crabrt.process.shell.channels import Channels
from crabrt.process.shell.interrupting import Foreground, is_at_prompt
from crabrt.process.shell.listening import Listener, Sink
from crabrt.process.shell.members import is_alive, send
from crabrt.process.shell.reports import Begun, Ended, Record, Report
from crabrt.process.shell.script import REPAIR, report_line
from crabrt.process.shell.values import UNKNOWN_STATUS
from crabrt.process.table import Process

OnOutput = Callable[[bytes], object]

_CHECK_S: Final = 0.25
_ASK_AGAIN, _REPAIR, _GIVE_UP = 2, 4, 8
_END_LIMIT_S: Final = 10.0


class Wishes:
    """What other threads want of a command. `interrupt`: as Ctrl-C. `end`: as if time were over."""

    def __init__(self) -> None:
        self.interrupt = threading.Event()
        self.end = threading.Event()


class Outcome(NamedTuple):
    """What came of a command.

    Attributes:
        report: the shell's; None if it has ended.
        ended: with what status the shell ended, if anybody knows; None if it lives.
        is_gone: the whole session has ended.
        timed_out, interrupted: what was done about it.
        refused: the shell did not take the command, and was ended.
        mute: the shell sat at its prompt and could not report, and was ended.
    """

    report: Report | None = None
    ended: int | None = None
    is_gone: bool = False
    timed_out: bool = False
    interrupted: bool = False
    refused: bool = False
    mute: bool = False


class Exchange:
    """Waits for the report `nonce` of `shell`. Used by one thread.

    Args:
        channels, listener: of the session.
        shell: bash.
        nonce: of the report.
        sink: where its output goes.
        on_output: gets live output, on this thread.
        before: children that the shell had when the command began.
        is_begun: whether the shell need not say that it has taken the command.
    """

    def __init__(
        self,
        channels: Channels,
        listener: Listener,
        shell: Process,
        *,
        nonce: str,
        sink: Sink,
        on_output: OnOutput | None,
        before: frozenset[int],
        is_begun: bool,
    ) -> None:
        self._channels = channels
        self._listener = listener
        self._shell = shell
        self._nonce = nonce
        self._sink = sink
        self._on_output = on_output
        self._is_begun = is_begun
        self._record: Record | None = None
        self._foreground = Foreground(shell, before)
        self._strikes = 0
        self._missed = 0
        self._checked = time.monotonic()

    def finish(self, limit_s: float, wishes: Wishes) -> Outcome:
        """Wait for the end, or bring it about when the time is over or somebody wishes so."""
        deadline = time.monotonic() + limit_s
        interrupted = False
        try:
            while not self._is_over(min(_CHECK_S, deadline - time.monotonic())):
                if wishes.end.is_set() or time.monotonic() >= deadline:
                    is_late = not wishes.end.is_set()
                    self._end()
                    return self._outcome(timed_out=is_late, interrupted=not is_late)
                if wishes.interrupt.is_set():
                    wishes.interrupt.clear()
                    interrupted = True
                    self._foreground.ask(self._is_over)
        except BaseException:  # of the callback, or of a signal's handler
            self._on_output = None
            self._end()
            raise
        if isinstance(self._record, Report) and not (self._is_begun or interrupted):
            # What runs at its prompt has swallowed the line. It would again.
            send(self._shell, signal.SIGKILL)
            return Outcome(refused=True)
        return self._outcome(interrupted=interrupted)

    def _outcome(self, *, timed_out: bool = False, interrupted: bool = False) -> Outcome:
        record = self._record
        return Outcome(
            report=record if isinstance(record, Report) else None,
            ended=record.status if isinstance(record, Ended) else None,
            is_gone=record is None,
            timed_out=timed_out,
            interrupted=interrupted,
            mute=self._strikes >= _GIVE_UP,
        )

    def _end(self) -> None:
        if not self._foreground.end(self._is_over):
            send(self._shell, signal.SIGKILL)
            self._is_over(_END_LIMIT_S)

    def _is_over(self, limit_s: float) -> bool:
        """Whether the command ends within `limit_s`; passes live output on meanwhile."""
        until = time.monotonic() + limit_s
        while True:
            self._record = self._record or self._listener.take(self._is_ours)
            while (piece := self._listener.fetch(self._sink)) is not None:
                if self._on_output is not None:
                    self._on_output(piece)
            if self._record is not None or self._listener.is_gone:
                return True
            now = time.monotonic()
            if now >= self._checked + _CHECK_S:
                self._checked = now
                self._look_after()
            if now >= until:
                return False
            self._listener.wait(min(until - now, _CHECK_S))

    def _is_ours(self, record: Record) -> bool:
        if isinstance(record, Begun):
            self._is_begun = self._is_begun or record.nonce == self._nonce
        if isinstance(record, Report):
            return record.nonce == self._nonce
        return isinstance(record, Ended) and not is_alive(self._shell)

    def _look_after(self) -> None:
        """See to a shell that has lost a line, or whose end nobody has told."""
        channels = self._channels
        self._missed = 0 if is_alive(self._shell) else self._missed + 1
        if self._missed >= _GIVE_UP:
            self._record = Ended(UNKNOWN_STATUS)
            return
        if channels.unread_bytes(channels.command) or not is_at_prompt(
            self._shell, channels.path("command")
        ):
            self._strikes = 0
            return
        self._strikes += 1
        line = report_line(channels.directory, self._nonce)
        if self._strikes == _ASK_AGAIN:
            channels.send(channels.command, line)
        elif self._strikes == _REPAIR:
            channels.send(channels.command, REPAIR + line)
        elif self._strikes >= _GIVE_UP:
            send(self._shell, signal.SIGKILL)
