"""The port of observers: who says what may have changed in a workspace since the last look.

Whoever says it, the answer is a `workspace.Scan`: equal is claimed only where stamps prove it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from crabrt.workspace import Scan, Suspects, Tracker

Foreign = dict[bytes, frozenset[int]]
"""Process ids by path."""


class Look(msgspec.Struct, frozen=True):
    """One look at a workspace.

    Attributes:
        scan: what it gave.
        observer: who looked, for people: ``scan``, ``fanotify``, or ``scan (why not fanotify)``.
        unobserved: what could not be looked at: processes that may store into files they hold
            without that being reported.
        foreign: paths to which processes did something that are not the run's, and which; as far
            as the kernel tells, and some at most. They are looked at like all others.
    """

    scan: Scan
    observer: str
    unobserved: tuple[str, ...] = ()
    foreign: Foreign = {}


class Observer(Protocol):
    """Owned by the thread that owns the `Tracker`; `close` may come from another."""

    @property
    def name(self) -> str:
        """``scan`` or ``fanotify``."""
        ...

    def look(self, tracker: Tracker) -> Look:
        """What may have changed since the last look that was `settled`.

        Raises:
            CrabError: as `Tracker.scan`.
        """
        ...

    @property
    def watches(self) -> bool:
        """Whether `peek` may tell anything. Any thread may ask."""
        ...

    def peek(self) -> Suspects | None:
        """Where something happened that was not told yet, for who wants to read it early.

        It is looked at by the next look all the same. None if that will be at everything.
        """
        ...

    def settled(self) -> None:
        """The tracker holds what the last look found."""
        ...

    def distrust(self) -> None:
        """The tracker is another one, or an older state of it: the next look is at everything."""
        ...

    def audit(self, tracker: Tracker, cancelled: Callable[[], bool]) -> tuple[bytes, ...]:
        """If it is time: look at everything; paths that the observer would have missed."""
        ...

    def close(self) -> None:
        """Stop observing."""
        ...
