"""Early work: what a watch tells while a tool still runs is read before the turn ends.

What the model's next wait will hide is left to that: a tool whose files are read beside it shares
the machine with the reading, and nobody waits for a capture that a wait hides. What is more lives
from what is left over. A round is broken off as soon as somebody needs the thread; it rests as long
as it works, so it takes half a processor at most, and it waits while the machine has no processor
to spare.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Final

from crabrt.inspector.observer import Observer
from crabrt.store import StoreWriter
from crabrt.workspace.early import EarlyReads
from crabrt.workspace.early_reader import EarlyReader
from crabrt.workspace.identity import Workspace

PAUSE_S: Final = 0.1
PAUSE_MOST_S: Final = 2.0
"""Between two rounds; while nothing happens each pause is twice the one before."""

FILE_S: Final = 0.001
BYTE_S: Final = 1 / (64 << 20)
"""What a capture is expected to take for a file and for a byte: about five times what it takes on
an idle machine (``crab bench latency``: 1,000 files in 0.19 s, 1 GiB in 2.4 s)."""

HIDDEN_SHARE: Final = 0.5
"""Of a wait, so much is counted on."""

_BREATH_S: Final = 0.002
"""Work shorter than this is not worth a rest of its own."""

Pause = Callable[[float], bool]
"""Waits for as many seconds, or until somebody needs the thread; whether somebody does."""


class EarlyWork:
    """Rounds of early reading. Used by the thread that owns the `Tracker`.

    Args:
        observer: tells what happened; only a watch can.
        workspace: what is read.
        writer: where contents go.
        busy: whether the machine has no processor to spare.
        sync: see `EarlyReader`.
        coming_s: how long the model's next wait will likely last, at least; 0: nobody knows.
    """

    def __init__(
        self,
        observer: Observer,
        workspace: Workspace,
        writer: StoreWriter,
        busy: Callable[[], bool] | None = None,
        sync: Callable[[], Future[bool]] | None = None,
        *,
        coming_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._observer = observer
        self._coming_s = coming_s
        self._reader = EarlyReader(workspace, writer, sync)
        self._busy = busy if busy is not None else machine_is_busy
        self._pause_s = PAUSE_S

    @property
    def possible(self) -> bool:
        """Whether there is anybody who tells. Any thread may ask."""
        return self._observer.watches

    @property
    def reads(self) -> EarlyReads:
        """What was read for the next capture."""
        return self._reader.reads

    def round(self, pause: Pause) -> float | None:
        """Read what can be read now.

        Returns:
            In how many seconds to come again; None: not before the next capture.
        """
        reader = self._reader
        told = None if reader.tired else self._observer.peek()
        if told is None:
            return None
        reader.tell(told)
        if told.places or told.subtrees:
            self._pause_s = PAUSE_S
        else:
            self._pause_s = min(2 * self._pause_s, PAUSE_MOST_S)
        if reader.waiting:
            hidden_s = self._coming_s() * HIDDEN_SHARE
            reader.round(_Pace(pause, self._busy).may_go_on, partial(_takes_longer, hidden_s))
        return self._pause_s

    def settled(self) -> int:
        """A capture is over; how many bytes went into the store early for it, or in vain."""
        self._pause_s = PAUSE_S
        stored = self._reader.stored_bytes
        self._reader.settled()
        return stored


def _takes_longer(hidden_s: float, files: int, size_bytes: int) -> bool:
    return files * FILE_S + size_bytes * BYTE_S > hidden_s


class _Pace:
    """Rests as long as was worked."""

    def __init__(self, pause: Pause, busy: Callable[[], bool]) -> None:
        self._pause, self._busy = pause, busy
        self._since = time.monotonic() - _BREATH_S  # is the machine busy? is asked at once

    def may_go_on(self) -> bool:
        """Rest if it is time; False if somebody needs the thread."""
        worked_s = time.monotonic() - self._since
        if worked_s < _BREATH_S:
            return not self._pause(0)
        if self._pause(min(worked_s, PAUSE_S)):
            return False
        while self._busy():
            if self._pause(PAUSE_S):
                return False
        self._since = time.monotonic()
        return True


def machine_is_busy() -> bool:
    """Whether more threads run, or could, than there are processors; this one counts."""
    try:
        with open("/proc/loadavg", "rb") as file:
            running = int(file.read().split()[3].partition(b"/")[0])
    except (OSError, ValueError, IndexError):
        return False
    return running > (os.cpu_count() or 1)
