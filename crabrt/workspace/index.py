"""The index in memory: for every directory its names, their stamps, and their captured entries.

It is a tree of `Dir` objects, one for each directory, and lean inside: stamps are one packed byte
string, entries are the bytes of the tree nodes that hold them, decoded only where something
changed. What an entry was can therefore be told without reading the store.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Literal

from crabrt.core.listing import NOTHING, Listing
from crabrt.core.trees import Entry
from crabrt.workspace.changes import join
from crabrt.workspace.stamps import GONE, STAMP_BYTES

Doubt = Literal["racy", "volatile", "torn", "failed"]
"""Why the stamp of a name is not enough: it was read in the tick of its own change; a process has
it mapped for writing; it kept changing while it was read; reading failed in a way that may pass."""

LOCKED = "permission denied"
"""Reason (or its beginning) why a name is not captured that stays so while its stamp does."""

Linked = tuple[int, int, bytes]
"""Device, inode and name of a captured file with more than one link."""


class Dir:
    """One directory as it was last captured. Owned by a `Tracker`.

    Attributes:
        parent, name, depth: where it is; None, empty and 0 for the workspace itself.
        stamp: of the directory, taken before it was listed; empty when never captured.
        names: all names in it that are not excluded, in order, captured or not.
        stamps: the stamps of `names`, one after the other.
        listing: the captured entries.
        dirs: the captured directories in it, by name.
        doubts: names to be read again at the next scan whatever their stamp says.
        skipped: names that are not captured, with the reason.
        ignores: the bytes of the ignore file in it when it was listed.
        linked: captured files that have more than one link.
        settled: whether an unchanged `stamp` proves unchanged names and metadata.
    """

    __slots__ = (
        "depth",
        "dirs",
        "doubts",
        "ignores",
        "linked",
        "listing",
        "name",
        "names",
        "parent",
        "settled",
        "skipped",
        "stamp",
        "stamps",
    )

    def __init__(self, parent: Dir | None, name: bytes) -> None:
        self.parent = parent
        self.name = name
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.stamp = b""
        self.names: tuple[bytes, ...] = ()
        self.stamps = b""
        self.listing: Listing = NOTHING
        self.dirs: dict[bytes, Dir] = {}
        self.doubts: dict[bytes, Doubt] = {}
        self.skipped: dict[bytes, str] = {}
        self.ignores = b""
        self.linked: tuple[Linked, ...] = ()
        self.settled = False

    @property
    def path(self) -> bytes:
        """Relative to the workspace; empty for the workspace itself."""
        parts = []
        node: Dir = self
        while node.parent is not None:
            parts.append(node.name)
            node = node.parent
        return b"/".join(reversed(parts))

    def stamp_of(self, name: bytes) -> bytes:
        """The stamp of a name; `GONE` of one that is not in the index."""
        at = bisect_left(self.names, name)
        if at == len(self.names) or self.names[at] != name:
            return GONE
        return self.stamps[at * STAMP_BYTES : (at + 1) * STAMP_BYTES]

    def walk(self) -> Iterator[Dir]:
        """This directory and all below it, each before what is in it."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.dirs.values())

    def tree(self) -> Iterator[tuple[bytes, Entry]]:
        """Path and entry of everything below this directory, in no particular order."""
        stack = [(self, self.path)]
        while stack:
            node, path = stack.pop()
            for entry in node.listing.entries():
                yield join(path, entry.name), entry
            stack.extend((child, join(path, name)) for name, child in node.dirs.items())
