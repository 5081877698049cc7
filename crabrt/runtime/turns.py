"""When a turn begins and ends: the state machine of SEMANTICS "Turns". No I/O but the clock.

The first model or tool call opens turn 1. A model call opens the next turn iff no tool call is
running and, since the turn opened, a tool call finished or, in a run that never wrapped a tool, a
reply was delivered. Every other model call (a helper, a retry, a judge) belongs to the open turn.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import Future

from crabrt.inspector.network import Spans


@dataclasses.dataclass
class TurnMachine:
    """Where a run stands. The caller holds the run's lock round each call.

    Attributes:
        turn: the open turn; 0 before the first call.
        base: the turn on whose state the open one began.
        running: tool calls (and child runs) that began and did not finish.
        tool_finished, replied: whether that happened since the turn opened.
        wraps_tools: whether this run ever made a tool call.
        closed: whether the open turn's effects are final (after an end or a rollback).
        unsaved: whether a tool has ended since the last checkpoint was asked for that a resume
            would run again.
        owes_point: whether a call that left the machine has ended since, and a checkpoint follows.
        tools: when tool calls ran.
    """

    turn: int = 0
    base: int = 0
    running: int = 0
    tool_finished: bool = False
    replied: bool = False
    wraps_tools: bool = False
    closed: bool = False
    unsaved: bool = False
    owes_point: bool = False
    tools: Spans = dataclasses.field(default_factory=Spans)
    _for_quiet: list[Future[None]] = dataclasses.field(default_factory=list)

    def model_call_opens(self) -> bool:
        """Whether a model call made now begins a turn."""
        if self.turn == 0 or self.closed:
            return True
        if self.running:
            return False
        return self.tool_finished or (self.replied and not self.wraps_tools)

    def tool_call_opens(self) -> bool:
        """Whether a tool call made now begins a turn (only where none is open)."""
        return self.turn == 0 or self.closed

    def open(self, base: int | None = None) -> int:
        """Begin the next turn on the state of `base` (default: of the one before); its number."""
        self.base = self.turn if base is None else base
        self.turn += 1
        self.tool_finished = self.replied = self.closed = False
        return self.turn

    def close(self) -> None:
        """The open turn's effects are final; the next call opens another."""
        self.closed = True

    def tool_began(self) -> None:
        """A tool call of the open turn starts."""
        self.wraps_tools = True
        self.running += 1
        self.tools.begin()

    def tool_ended(self, *, left: bool = False) -> None:
        """It finished, raised, or was cancelled; `left`: it left the machine, or may have."""
        self.tools.end()
        self.tool_finished = True
        self.owes_point = self.owes_point or left
        self.unsaved = self.unsaved or not left
        self.rest()

    def rest(self) -> None:
        """One of those that run does not, for now."""
        self.running -= 1
        if not self.running:
            for_quiet, self._for_quiet = self._for_quiet, []
            for future in for_quiet:
                if future.set_running_or_notify_cancel():
                    future.set_result(None)

    def wake(self) -> None:
        """It goes on."""
        self.running += 1

    def quiet(self) -> Future[None]:
        """Done as soon as no tool runs."""
        future: Future[None] = Future()
        if self.running:
            self._for_quiet.append(future)
        else:
            future.set_result(None)
        return future

    def checkpointed(self) -> None:
        """A checkpoint of the workspace as it is was asked for."""
        self.unsaved = self.owes_point = False

    def reply_delivered(self) -> None:
        """A model's reply reached the loop."""
        self.replied = True

    def move(self, turn: int, base: int) -> None:
        """Go to `turn`, which was opened before this process was there (a replay)."""
        self.turn, self.base = turn, base
        self.tool_finished = self.replied = self.closed = False
        self.checkpointed()

    def tool_answered(self) -> None:
        """A tool call was answered from the journal."""
        self.wraps_tools = self.tool_finished = True
