"""A directory as the nodes that hold it: made once, then changed at the cost of the change.

Where names stay, the nodes they are in are encoded again, one a level; where names come or go,
`cutting` finds the nodes that differ. All others are neither decoded nor hashed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
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
    first_of,
    part_of,
    reference,
)
from crabrt.core.ids import ObjectId, ObjectKind
from crabrt.core.trees import Entry, Node, NodeRef


class Listing(msgspec.Struct, frozen=True, array_like=True, gc=False):
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

Both = tuple[Entry | None, Entry | None]
"""What an entry was and what it is; None where there is none."""


class Edit:
    """A listing on its way to another one. Entries are decoded only where they are asked for.

    Attributes:
        changes: by name, every entry that was set or dropped: what it is now.
    """

    __slots__ = ("_decoded", "_differing", "_listing", "changes")

    def __init__(self, listing: Listing) -> None:
        self.changes: dict[bytes, Entry | None] = {}
        self._listing = listing
        self._decoded: dict[int, dict[bytes, Entry]] = {}
        self._differing: dict[bytes, Both] | None = None

    def before(self, name: bytes) -> Entry | None:
        """The entry of that name in the listing as it was."""
        levels = self._listing.levels
        return self._leaf(part_of(levels[0], name)).get(name) if levels else None

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
            entries = decode(self._listing.levels[0][at].data).entries
            found = self._decoded[at] = {entry.name: entry for entry in entries}
        return found

    def differing(self) -> dict[bytes, Both]:
        """The changes that change something: by name, what the entry was and what it is."""
        if self._differing is None:
            self._differing = {
                name: (before, now)
                for name, now in self.changes.items()
                if now != (before := self.before(name))
            }
        return self._differing

    def store(self, put: Put) -> Listing:
        """Put the nodes that differ; the listing now."""
        listing, differing = self._listing, self.differing()
        if listing.levels and not differing:
            return listing
        grown = same_names = 0
        for before, now in differing.values():
            if before is None:
                grown += 1
            elif now is None:
                grown -= 1
            else:
                same_names += 1
        count = listing.count + grown
        if same_names == len(differing) and listing.levels:
            return Listing(count, self._with_values(differing, put))
        changes = {name: now for name, (_, now) in differing.items()}
        return Listing(count, self._with_names(changes, count, put))

    def _with_values(self, names: Iterable[bytes], put: Put) -> tuple[tuple[Part, ...], ...]:
        """The levels where names, and so cuts, are what they were: by far the most frequent."""
        levels, changes = self._listing.levels, self.changes
        parts = list(levels[0])
        touched = {part_of(parts, name) for name in names}
        for at in touched:
            entries = [changes.get(name) or entry for name, entry in self._leaf(at).items()]
            parts[at] = _put_part(parts[at].first, Node(0, tuple(entries)), put)
        now = [tuple(parts)]
        for level in range(1, len(levels)):
            below, parts = parts, list(levels[level])
            touched = {part_of(parts, below[at].first) for at in touched}
            for at in touched:
                first = parts[at].first
                end = parts[at + 1].first if at + 1 < len(parts) else None
                parts[at] = _put_part(first, Node(level, (), _between(below, first, end)), put)
            now.append(tuple(parts))
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


def _between(parts: Sequence[Part], first: bytes, end: bytes | None) -> tuple[NodeRef, ...]:
    """References to the parts from that which begins with `first` to that before `end`."""
    begin = bisect_left(parts, first, key=first_of)
    stop = len(parts) if end is None else bisect_left(parts, end, key=first_of)
    return tuple(map(reference, parts[begin:stop]))


def _put_part(first: bytes, node: Node, put: Put) -> Part:
    data = encode(node)
    return Part(first, put(data, ObjectKind.TREE), data)


def _references(_: int, part: Part) -> Iterable[NodeRef]:
    return decode(part.data).nodes
