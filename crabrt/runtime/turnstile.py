"""Who captures first, where several runs of one process want to at the same moment.

Captures of runs that are driven from one process (agents under ``asyncio.gather``, for example)
share its interpreter: all at once, each takes as long as all of them together. So only as many as
there are processors go at a time, and the one whose loop needs it soonest goes next: one that a
gate waits for, then one whose reply has come, then the one whose reply is expected first (earliest
deadline first). Nobody is interrupted, and nobody waits for long: behind a capture that takes its
time (a first one, a large file), the others go in beside it.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

PATIENCE_S = 0.05
"""How long somebody waits for a place; most captures take less."""

WAITED_FOR = -math.inf
REPLIED = 0.0


class Due(Protocol):
    """Something with a deadline, which may be moved forward while it waits.

    Attributes:
        due: when the loop is expected to need it, by ``time.monotonic``; or `REPLIED`, or
            `WAITED_FOR`.
    """

    due: float


class Turnstile:
    """Lets `width` holders through at a time. Safe to use from several threads."""

    def __init__(self, width: int) -> None:
        self._free = width
        self._lock = threading.Lock()
        self._waiting: list[tuple[Due, threading.Event]] = []

    @contextmanager
    def passed(self, holder: Due) -> Iterator[None]:
        """Wait for a place, or until patience ends; the place is given on at the end."""
        waiter = (holder, threading.Event())
        with self._lock:
            has_place = self._free > 0
            if has_place:
                self._free -= 1
            else:
                self._waiting.append(waiter)
        if not has_place:
            has_place = waiter[1].wait(PATIENCE_S) or not self._gave_up(waiter)
        try:
            yield
        finally:
            if has_place:
                self._give_on()

    def _gave_up(self, waiter: tuple[Due, threading.Event]) -> bool:
        """Take it off the list; whether it was still on it."""
        with self._lock:
            waiting = waiter in self._waiting
            if waiting:
                self._waiting.remove(waiter)
            return waiting

    def _give_on(self) -> None:
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            soonest = min(range(len(self._waiting)), key=lambda at: self._waiting[at][0].due)
            _, turn = self._waiting.pop(soonest)
            turn.set()


_here: tuple[int, Turnstile] | None = None


def turnstile() -> Turnstile:
    """That of this process; a forked child has one of its own."""
    global _here  # noqa: PLW0603  one for the process is what it is for
    pid = os.getpid()
    known = _here
    if known is None or known[0] != pid:
        known = _here = (pid, Turnstile(len(os.sched_getaffinity(0))))
    return known[1]
