"""What became of processes where a state was restored: who ended, who is back, who is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from crabrt.core.processes import KeptShell, LastingProcess, ProcessTree
from crabrt.process.family import Identity
from crabrt.process.respawning.starting import Started

_NAMED: Final = 4


class Missing(msgspec.Struct, frozen=True):
    """A tree that did not come back.

    Attributes:
        top: its topmost process.
        why: for people.
        startable: what of it can be started again from its command.
    """

    top: LastingProcess
    why: str
    startable: tuple[LastingProcess, ...] = ()


class Severed(msgspec.Struct, frozen=True):
    """A tree that is back, but for what led out of it.

    Attributes:
        top: its topmost process.
        closed: the other ends of the connections that it had: ``tcp 10.0.0.7:5432``.
        lost: what else, for people.
    """

    top: LastingProcess
    closed: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    @property
    def told(self) -> tuple[str, ...]:
        """The same for people, a line each."""
        more = len(self.closed) - _NAMED
        named = ", ".join(self.closed[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        over = (f"connections closed: {named}",) if self.closed else ()
        return over + tuple(f"lost: {one}" for one in self.lost)


@dataclass(frozen=True)
class Revival:
    """What became of processes.

    Attributes:
        ended: the topmost ones of those that were ended.
        lost: those of them that had no image: nothing brings them back.
        revived: the topmost ones of those that are back, as they were recorded.
        processes: all that are back, as they are now.
        missing: those that are not.
        numbers: of topmost processes that are back: what each was, and what it is.
        may_start: whether what has no image may be started again from its command.
        started: what was.
        rebuilt: shells of the loop's: it gives new ones their state when it goes on.
        notes: what else is to be known of those that are back, for people.
        shells: the loop's own, where they are not as they were recorded.
        severed: those that are back without what led out of them.
    """

    ended: tuple[LastingProcess, ...] = ()
    lost: tuple[Missing, ...] = ()
    revived: tuple[LastingProcess, ...] = ()
    processes: tuple[Identity, ...] = ()
    missing: tuple[Missing, ...] = ()
    numbers: tuple[tuple[int, int], ...] = ()
    may_start: bool = False
    started: tuple[Started, ...] = ()
    rebuilt: tuple[LastingProcess, ...] = ()
    notes: tuple[str, ...] = ()
    shells: tuple[KeptShell, ...] = ()
    severed: tuple[Severed, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all that was to come back is back, and all that ended could."""
        gone = [one for one in self.lost if not (self.may_start and one.startable)]
        return not self.missing and not gone and not any(one.silent for one in self.started)


def not_imaged(tree: ProcessTree) -> str:
    """Why no image brings `tree` back; empty if one does."""
    return "" if tree.imaged else f"it has no image: {tree.why_not}"
