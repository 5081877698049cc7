"""A directory as the nodes that hold it: made once, then changed at the cost of the change.

Where names stay, the nodes they are in are encoded again, one a level; where names come or go,
`cutting` finds the nodes that differ. All others are neither decoded nor hashed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat

import msgspec

from crabrt.core.content import Put
from crabrt.core.cutting import (
    SPLIT_OVER,
    Changes,
    Level,
    Part,
    decode,
    encode,
    firsts_of,
    part_of,
    reference,
)
from crabrt.core.ids import ObjectId, ObjectKind
from crabrt.core.trees import Entry, Node, NodeRef


class Listing(msgspec.Struct, frozen=True, array_like=True):
    """The nodes of one directory.

    Attributes:
        count: of entries.
        levels: the nodes of each level in name order, those that hold entries first; the last level
            is a single node. None at all for a directory that was never stored.
    """

    count: int = 0
    levels: tuple[tuple[Part, ...], ...] = ()

    @property
    def id(self) -> ObjectId:
        """Of the directory: its topmost node."""
        return self.levels[-1][0].id

    def entries(self) -> Iterator[Entry]:
        """All entries in name order."""
        for leaf in self.levels[0] if self.levels else ():
            yield from decode(leaf.data).entries


NOTHING = Listing()
"""The listing of a directory that was never stored."""


class Edit:
    """A listing on its way to another one. Entries are decoded only where they are asked for.

    Attributes:
        changes: by name, every entry that was set or dropped: what it is now.
    """

    __slots__ = ("_before", "_decoded", "_differing", "_firsts", "_listing", "changes")

    def __init__(self, listing: Listing) -> None:
        self.changes: dict[bytes, Entry | None] = {}
        self._listing = listing
        self._firsts = firsts_of(listing.levels[0]) if listing.levels else []
        self._decoded: dict[int, dict[bytes, Entry]] = {}
        self._before: dict[bytes, Entry | None] = {}
        self._differing: dict[bytes, Entry | None] | None = None

    def before(self, name: bytes) -> Entry | None:
        """The entry of that name in the listing as it was."""
        if name not in self._before:
            self._before[name] = self._leaf(part_of(self._firsts, name)).get(name)
        return self._before[name]

    def now(self, name: bytes) -> Entry | None:
        """The entry of that name as it is now."""
        if name in self.changes:
            return self.changes[name]
        return self.before(name)

    def keep(self, entry: Entry) -> None:
        """From now on `entry` is what stands under its name."""
        self.changes[entry.name] = entry
        self._differing = None

    def drop(self, name: bytes) -> None:
        """From now on nothing stands under `name`."""
        self.changes[name] = None
        self._differing = None

    def _leaf(self, at: int) -> dict[bytes, Entry]:
        found = self._decoded.get(at)
        if found is None:
            levels = self._listing.levels
            entries = decode(levels[0][at].data).entries if levels else ()
            found = self._decoded[at] = {entry.name: entry for entry in entries}
        return found

    def differing(self) -> dict[bytes, Entry | None]:
        """The changes that change something."""
        if self._differing is None:
            before = self.before
            self._differing = {
                name: entry for name, entry in self.changes.items() if entry != before(name)
            }
        return self._differing

    def store(self, put: Put) -> Listing:
        """Put the nodes that differ; the listing now."""
        listing, differing = self._listing, self.differing()
        if listing.levels and not differing:
            return listing
        count = listing.count
        same_names = bool(listing.levels)
        for name, entry in differing.items():
            grown = (entry is not None) - (self.before(name) is not None)
            count += grown
            same_names = same_names and not grown
        if same_names:
            return Listing(count, self._with_values(differing, put))
        return Listing(count, self._with_names(differing, count, put))

    def _with_values(
        self, changes: Mapping[bytes, Entry | None], put: Put
    ) -> tuple[tuple[Part, ...], ...]:
        """The levels where names, and so cuts, are what they were: by far the most frequent."""
        levels = self._listing.levels
        leaves = list(levels[0])
        touched = {part_of(self._firsts, name) for name in changes} if len(leaves) > 1 else {0}
        for at in touched:
            entries = [changes.get(name) or entry for name, entry in self._leaf(at).items()]
            leaves[at] = _put_part(leaves[at].first, Node(0, tuple(entries)), put)
        now = [tuple(leaves)]
        for level in range(1, len(levels)):
            now.append(_above(level, levels[level], levels[level - 1], now[-1], put))
        return tuple(now)

    def _with_names(self, changes: Changes, count: int, put: Put) -> tuple[tuple[Part, ...], ...]:
        """The levels where names came or went."""
        listing = self._listing
        levels: list[tuple[Part, ...]] = []
        sizes = (listing.count, count)
        for level, old in enumerate(chain(listing.levels, repeat(()))):
            if level and not old:  # a level that was not there refers to all of the one below
                changes = {part.first: reference(part) for part in levels[-1]}
            parts = Level(level, old, put, self._items if level == 0 else _references)
            # A level that was one node for having few items has no cuts to go by, and one that is
            # to be a single node has none to make.
            if min(sizes) > SPLIT_OVER:
                now = parts.cut_again(changes)
            else:
                now = parts.cut_anew(changes, split=sizes[1] > SPLIT_OVER)
            levels.append(now)
            if len(now) == 1:
                break
            changes = parts.references_changed
            sizes = (len(old), len(now))
        return tuple(levels)

    def _items(self, at: int, _: Part) -> Iterable[Entry]:
        return self._leaf(at).values()


def put_directory(entries: Sequence[Entry], put: Put) -> ObjectId:
    """Store a directory; its id. `entries` must be in strictly ascending name order."""
    edit = Edit(NOTHING)
    for entry in entries:
        edit.keep(entry)
    return edit.store(put).id


def _above(
    level: int,
    old: tuple[Part, ...],
    below_was: tuple[Part, ...],
    below: tuple[Part, ...],
    put: Put,
) -> tuple[Part, ...]:
    """A level whose nodes refer to the same names as before, some of them to other nodes."""
    references = [reference(part) for part in below]
    if len(old) == 1:
        return (_put_part(old[0].first, Node(level, (), tuple(references)), put),)
    now = list(old)
    firsts, firsts_below = firsts_of(old), firsts_of(below)
    moved = (part.first for part, was in zip(below, below_was, strict=True) if part is not was)
    for at in {part_of(firsts, first) for first in moved}:
        begin = bisect_left(firsts_below, firsts[at])
        end = bisect_left(firsts_below, firsts[at + 1]) if at + 1 < len(old) else None
        now[at] = _put_part(firsts[at], Node(level, (), tuple(references[begin:end])), put)
    return tuple(now)


def _put_part(first: bytes, node: Node, put: Put) -> Part:
    data = encode(node)
    return Part(first, put(data, ObjectKind.TREE), data)


def _references(_: int, part: Part) -> Iterable[NodeRef]:
    return decode(part.data).nodes
