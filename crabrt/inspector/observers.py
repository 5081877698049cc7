"""The observers, and which one a workspace gets.

`ScanObserver` looks at everything; `AutoObserver` begins so, and has a `WatchObserver` take over
where that is slow and one can be had.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from crabrt.inspector.observer import Look, Observer
from crabrt.inspector.watch import Unwatchable, Watch, open_watch
from crabrt.inspector.watch_observer import WatchObserver
from crabrt.workspace import Suspects, Tracker

WATCH_FROM_S = 0.01
"""A scan that takes more of a processor's time is worth a watch."""


class ScanObserver:
    """Looks at everything, every time. Works everywhere.

    Args:
        why: no watch could be had, if one was wanted.
    """

    name = "scan"

    def __init__(self, why: str = "") -> None:
        self._by = f"scan ({why})" if why else self.name

    def look(self, tracker: Tracker) -> Look:
        """See `Observer`."""
        return Look(tracker.scan(), self._by)

    @property
    def watches(self) -> bool:
        """See `Observer`."""
        return False

    def peek(self) -> Suspects | None:
        """See `Observer`."""
        return None

    def settled(self) -> None:
        """See `Observer`."""

    def distrust(self) -> None:
        """See `Observer`."""

    def audit(self, tracker: Tracker, cancelled: Callable[[], bool]) -> tuple[bytes, ...]:  # noqa: ARG002 - the port's
        """See `Observer`: there is nothing that a scan could miss and another could not."""
        return ()

    def close(self) -> None:
        """See `Observer`."""


class AutoObserver:
    """Scans while that is quick, and has a watch opened when it is not and one can be had.

    A watch costs a millisecond or two a look, whatever the size of the workspace (who holds files
    is asked of every process), and the kernel a little at every change on the file system: a small
    workspace is better off without.
    """

    def __init__(self, opened: Callable[[], Watch]) -> None:
        self._opened = opened
        self._now: ScanObserver | WatchObserver = ScanObserver()
        self._looks = 0
        self._slow = self._tried = False

    @property
    def name(self) -> str:
        """See `Observer`."""
        return self._now.name

    def look(self, tracker: Tracker) -> Look:
        """See `Observer`."""
        if self._slow and not self._tried:
            self._tried = True
            try:
                self._now = WatchObserver(self._opened())
            except Unwatchable as error:
                self._now = ScanObserver(error.message)
        began = time.thread_time()
        look = self._now.look(tracker)
        # The first look lists everything; the ones after it say what a look takes. Not by the
        # clock on the wall: on a busy machine every look takes long, and one that asks all
        # processes the longest.
        self._slow = self._looks > 0 and time.thread_time() - began > WATCH_FROM_S
        self._looks += 1
        return look

    @property
    def watches(self) -> bool:
        """See `Observer`."""
        return self._now.watches

    def peek(self) -> Suspects | None:
        """See `Observer`."""
        return self._now.peek()

    def settled(self) -> None:
        """See `Observer`."""
        self._now.settled()

    def distrust(self) -> None:
        """See `Observer`."""
        self._now.distrust()

    def audit(self, tracker: Tracker, cancelled: Callable[[], bool]) -> tuple[bytes, ...]:
        """See `Observer`."""
        return self._now.audit(tracker, cancelled)

    def close(self) -> None:
        """See `Observer`."""
        self._now.close()


def choose(wanted: str, workspace: bytes, meeting_place: Path, *, mark: bytes) -> Observer:
    """The observer for a workspace.

    Args:
        wanted: ``scan``, ``fanotify``, or ``auto``, which is the cheaper one that can be had.
        workspace: its path.
        meeting_place: see `open_watch`.
        mark: ``NAME=VALUE`` in the environment of what the run starts.

    Raises:
        Unwatchable: ``fanotify`` was asked for and cannot be had; the error says why.
    """
    opened = partial(open_watch, workspace, meeting_place, mark=mark)
    if wanted == "scan":
        return ScanObserver()
    if wanted != "fanotify":
        return AutoObserver(opened)
    try:
        return WatchObserver(opened())
    except Unwatchable as error:
        raise _named_and_refused(error) from error


def _named_and_refused(error: Unwatchable) -> Unwatchable:
    """`error` for whoever named the observer: which one, why it cannot be had, and what can."""
    why = error.message
    told = why if why.startswith("fanotify") else f"fanotify cannot be used here: {why}"
    hint = 'observer="auto", or CRAB_OBSERVER=auto, looks by a scan where nothing can be watched'
    hint = hint if error.hint is None else f"{hint}; {error.hint}"
    return Unwatchable(f"the observer {told}", error.reason, where=error.where, hint=hint)
