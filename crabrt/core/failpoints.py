"""Named places where a crash would matter most. In production the table is empty and a hit is free.

A module declares its failpoints at import and calls them at the step they name; the crash suite
enumerates `ALL`, arms one in a child process (``crabrt.testing.crash``), and proves what survives.
The idea is FreeBSD's fail(9).
"""

from __future__ import annotations

from collections.abc import Callable


class Failpoint:
    """One place. Calling it does nothing unless `action` is set, and then calls that.

    Attributes:
        name: dotted, stable: ``pack.synced``.
        meaning: what is on disk, and what is not, when the process dies here.
        action: what to do on a hit; set by tests only.
    """

    __slots__ = ("action", "meaning", "name")

    def __init__(self, name: str, meaning: str) -> None:
        self.name = name
        self.meaning = meaning
        self.action: Callable[[], None] | None = None

    def __call__(self) -> None:
        """A hit: nothing, unless a test armed it."""
        if self.action is not None:
            self.action()


ALL: dict[str, Failpoint] = {}
"""Every declared failpoint by name (of the modules imported so far)."""


def declare(name: str, meaning: str) -> Failpoint:
    """Declare a failpoint at module level.

    Raises:
        ValueError: the name is taken.
    """
    if name in ALL:
        raise ValueError(f"failpoint {name!r} is declared twice")
    point = ALL[name] = Failpoint(name, meaning)
    return point
