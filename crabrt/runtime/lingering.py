"""The engine's thread while a tool runs and nobody needs it: it does early work.

It lingers only where a watch tells what happens, only while a tool runs, and looks up after a tenth
of a second for the first time: a quick tool costs one entry in the queue of the thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from crabrt.inspector.early import PAUSE_S, EarlyWork

if TYPE_CHECKING:
    from crabrt.runtime.turns import TurnMachine


class Lingering:
    """When the engine's thread lingers, and what ends it.

    Args:
        early: the work.
        start: has something run on the engine's thread when it is free.
        wanted: whether somebody needs that thread.
    """

    def __init__(
        self,
        early: EarlyWork,
        start: Callable[[Callable[[], None]], Any],
        wanted: Callable[[], bool],
    ) -> None:
        self._early, self._start, self._wanted = early, start, wanted
        self._changed = threading.Condition()
        self._queued = self._broken_off = False
        self._machines: list[TurnMachine] = []

    def tool_began(self, machine: TurnMachine) -> None:
        """A tool of that run began. Any thread may say so."""
        if self._early.possible:
            with self._changed:
                if not any(known is machine for known in self._machines):
                    self._machines.append(machine)
            self.go_on()

    def go_on(self) -> None:
        """Linger, when nobody needs the thread, if a tool runs."""
        with self._changed:
            if self._queued or not self._tool_runs():
                return
            self._queued, self._broken_off = True, False
        try:
            self._start(self._linger)
        except RuntimeError:  # the engine is being closed
            self._queued = False

    def break_off(self) -> None:
        """Somebody needs the thread now."""
        if self._queued:
            with self._changed:
                self._broken_off = True
                self._changed.notify_all()

    def _is_over(self) -> bool:
        return self._broken_off or self._wanted()

    def _tool_runs(self) -> bool:
        self._machines = [one for one in self._machines if one.running > 0]
        return bool(self._machines)

    def _pause(self, seconds: float) -> bool:
        """Wait that long, unless somebody needs the thread; whether somebody does."""
        if seconds <= 0:
            return self._is_over()
        with self._changed:
            return self._changed.wait_for(self._is_over, seconds)

    def _linger(self) -> None:
        with contextlib.ExitStack() as end:
            end.callback(self._leave)
            pause_s: float | None = PAUSE_S
            while pause_s is not None and not self._pause(pause_s):
                with self._changed:
                    if not self._tool_runs():
                        self._queued = False  # at once: who begins a tool now has it queued anew
                        end.pop_all()
                        return
                pause_s = self._early.round(self._pause)

    def _leave(self) -> None:
        with self._changed:
            self._queued = False
