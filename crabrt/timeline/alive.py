"""What was alive after a turn, process by process: who it is, what it holds, whether it comes back.

Pure. Every face shows these values: what a face adds is layout, and how it makes text safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from crabrt.core.processes import LastingProcess, ProcessState, ProcessTree
from crabrt.inspector.lasting import LISTENS_NAMED, shown
from crabrt.timeline.safe_text import safe_path, safe_text
from crabrt.timeline.signs import Sign, Tone

MEMBERS_MOST: Final = 20
"""A tree of more processes shows the first of them, and how many others there are."""

LISTENS: Final = "listens at"

_IMAGED = Sign("●", "imaged", Tone.GOOD)
_AGAIN = Sign("○", "no image, can be started again", Tone.WARNING)
_NONE = Sign("✗", "no image", Tone.WARNING)


@dataclass(frozen=True, slots=True)
class Holding:
    """What a process holds of one kind.

    Attributes:
        verb: ``listens at``, ``holds`` (files that it has open or mapped), ``talks to``.
        paths: of files, relative to the workspace, raw bytes.
        ends: of sockets, for people.
    """

    verb: str
    paths: tuple[bytes, ...] = ()
    ends: tuple[str, ...] = ()

    def items(
        self,
        most: int,
        path: Callable[[bytes], str] = safe_path,
        text: Callable[[str], str] = safe_text,
    ) -> list[str]:
        """The first few as a face shows them, and how many others there are.

        Args:
            most: how many to name.
            path: makes a path safe to show.
            text: does so with the end of a socket.
        """
        every = [*map(path, self.paths[:most]), *map(text, self.ends[:most])]
        rest = len(self.paths) + len(self.ends) - most
        return [*every[:most], f"{rest:,} more"] if rest > 0 else every


@dataclass(frozen=True, slots=True)
class Member:
    """A process of a tree.

    Attributes:
        process: it.
        depth: 0 for the topmost; one more than its parent's.
        holdings: what it holds, of each kind of which there is any.
        unlisted: how many files and connections there are beside those.
    """

    process: LastingProcess
    depth: int
    holdings: tuple[Holding, ...]
    unlisted: int

    @property
    def title(self) -> str:
        """Its command, its number and the first places where it listens; safe to show."""
        return safe_text(shown(self.process))

    @property
    def beside_title(self) -> tuple[Holding, ...]:
        """The holdings that `title` does not tell in full."""
        told = len(self.process.listens) <= LISTENS_NAMED
        return tuple(one for one in self.holdings if not (told and one.verb == LISTENS))


@dataclass(frozen=True, slots=True)
class AliveTree:
    """A process whose parent is none of the run's, and what descends from it.

    Attributes:
        members: the topmost first, parents before children.
        more: how many there are beside those.
        image: whether it comes back.
        reasons: why it has no image, and what of it does not come back.
    """

    members: tuple[Member, ...]
    more: int
    image: Sign
    reasons: tuple[str, ...]

    @property
    def top(self) -> Member:
        """The one that the others descend from."""
        return self.members[0]

    @property
    def below(self) -> int:
        """How many descend from it."""
        return len(self.members) - 1 + self.more


def alive_trees(state: ProcessState) -> tuple[AliveTree, ...]:
    """All of `state`."""
    return tuple(map(_tree, state.trees))


def _tree(tree: ProcessTree) -> AliveTree:
    image = _IMAGED if tree.imaged else _AGAIN if tree.services else _NONE
    members = tuple(_members(tree.processes))
    more = max(0, len(members) - MEMBERS_MOST)
    reasons = (*((tree.why_not,) if tree.why_not else ()), *tree.lost)
    return AliveTree(members[:MEMBERS_MOST], more, image, reasons)


def _members(processes: Iterable[LastingProcess]) -> Iterator[Member]:
    depths: dict[int, int] = {}
    for one in processes:
        depth = depths[one.pid] = depths.get(one.parent, -1) + 1
        yield Member(one, depth, _holdings(one), one.unlisted)


def _holdings(one: LastingProcess) -> tuple[Holding, ...]:
    every = (
        Holding(LISTENS, ends=one.listens),
        Holding("holds", paths=one.files),
        Holding("talks to", ends=one.connections),
    )
    return tuple(held for held in every if held.paths or held.ends)
