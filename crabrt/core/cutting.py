"""Where a directory is cut into nodes, and what of that a change moves.

The cut is part of the format (docs/internals/trees.md): up to `SPLIT_OVER` items are one node; more
are cut where a hash of a *name* says so, and the nodes are the items of the level above. Only names
decide, so a directory has the same nodes however it came about. And a cut depends on nothing before
the one that precedes it: after a change it is enough to cut again from the part that changed, until
a cut falls where one was before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter

import msgspec
import xxhash

from crabrt.core.content import Put
from crabrt.core.ids import ObjectId, ObjectKind
from crabrt.core.trees import Entry, Node, NodeRef

SPLIT_OVER = 16
"""A directory (or level of nodes) of more items than this is split."""

_CUT_MASK = 0x07  # about 11 items a node
_NODE_MIN = 4  # whatever the names are, every level is at most a quarter of the one below
_NODE_MAX = 16

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Node).decode

Item = Entry | NodeRef
"""What a node holds: entries on level 0, references to nodes above it."""

Changes = Mapping[bytes, Item | None]
"""Items by name: what they are now, or None where there is none any more."""


class Part(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One node: the first name in it, its id, its bytes."""

    first: bytes
    id: ObjectId
    data: bytes


def reference(part: Part) -> NodeRef:
    """What the level above holds of a node."""
    return NodeRef(part.first, part.id)


first_of = attrgetter("first")
"""The first name in a part."""


def part_of(parts: Sequence[Part], name: bytes) -> int:
    """The index of the part in which `name` is, or would be."""
    at = bisect_right(parts, name, key=first_of)
    return at - 1 if at else 0


def _name_of(item: Item) -> bytes:
    return item.name if isinstance(item, Entry) else item.first


def _cuts(name: bytes, length: int, level: int) -> bool:
    """Whether a node of `length` items ends before `name`."""
    return length >= _NODE_MAX or (
        length >= _NODE_MIN and xxhash.xxh3_64_intdigest(name, seed=level) & _CUT_MASK == 0
    )


class Level:
    """One level while it is cut.

    Args:
        level: 0 for entries.
        old: its parts as they were.
        put: where nodes go that were not among them.
        items_of: the items of an old part, by its index.

    Attributes:
        references_changed: what the changes are to the level above.
    """

    def __init__(
        self,
        level: int,
        old: tuple[Part, ...],
        put: Put,
        items_of: Callable[[int, Part], Iterable[Item]],
    ) -> None:
        self.references_changed: dict[bytes, Item | None] = {}
        self._level = level
        self._old = old
        self._put = put
        self._items_of = items_of
        self._was: dict[bytes, Part] = {}

    def cut_anew(self, changes: Changes, *, split: bool) -> tuple[Part, ...]:
        """All items, cut from the beginning."""
        items: dict[bytes, Item] = {}
        for at in range(len(self._old)):
            items.update((_name_of(item), item) for item in self._open(at))
        items = _merged(items, changes)
        if not split:
            return (self._part(list(items.values())),)
        parts: list[Part] = []
        run: list[Item] = []
        for name, item in items.items():
            if _cuts(name, len(run), self._level):
                parts.append(self._part(run))
                run = []
            run.append(item)
        parts.append(self._part(run))
        return tuple(parts)

    def cut_again(self, changes: Changes) -> tuple[Part, ...]:
        """Only from where something changed until a cut is where it was."""
        old, level = self._old, self._level
        opened, same_names = self._changed_parts(changes)
        parts: list[Part] = []
        run: list[Item] = []
        at, pending = 0, iter(sorted(opened))
        following = next(pending, None)
        while at < len(old):
            while following is not None and following < at:
                following = next(pending, None)
            if not run and at not in opened:
                skip_to = len(old) if following is None else following
                parts += old[at:skip_to]
                at = skip_to
                continue
            if not run and at in same_names:
                parts.append(self._part(list(opened[at].values())))
                at += 1
                continue
            items = opened[at] if at in opened else _by_name(self._open(at))
            for name, item in items.items():
                if run and _cuts(name, len(run), level):
                    parts.append(self._part(run))
                    run = []
                run.append(item)
            at += 1
            if run and at < len(old) and at not in opened and _cuts(old[at].first, len(run), level):
                parts.append(self._part(run))
                run = []
        if run:
            parts.append(self._part(run))
        return tuple(parts)

    def _changed_parts(self, changes: Changes) -> tuple[dict[int, dict[bytes, Item]], set[int]]:
        """The parts that changes fall into: their items now; which surely keep their cuts."""
        by_part: dict[int, dict[bytes, Item | None]] = {}
        for name, item in changes.items():
            by_part.setdefault(part_of(self._old, name), {})[name] = item
        opened: dict[int, dict[bytes, Item]] = {}
        same_names: set[int] = set()
        for at, its in by_part.items():
            before = _by_name(self._open(at))
            opened[at] = _merged(before, its)
            if opened[at].keys() == before.keys():
                same_names.add(at)
        for at in list(opened):
            if at and self._old[at].first not in opened[at]:
                # Without the item that began this part, the one before it may go on.
                same_names.discard(at - 1)
                if at - 1 not in opened:
                    opened[at - 1] = _by_name(self._open(at - 1))
        return opened, same_names

    def _open(self, at: int) -> Iterable[Item]:
        part = self._old[at]
        self._was[part.first] = part
        self.references_changed.setdefault(part.first, None)
        return self._items_of(at, part)

    def _part(self, items: Sequence[Item]) -> Part:
        entries = tuple(item for item in items if isinstance(item, Entry))
        nodes = tuple(item for item in items if isinstance(item, NodeRef))
        data = encode(Node(self._level, entries, nodes))
        first = _name_of(items[0]) if items else b""
        part = self._was.get(first)
        if part is None or part.data != data:
            part = Part(first, self._put(data, ObjectKind.TREE), data)
            self.references_changed[first] = reference(part)
        else:
            del self.references_changed[first]
        return part


def _by_name(items: Iterable[Item]) -> dict[bytes, Item]:
    return {_name_of(item): item for item in items}


def _merged(items: dict[bytes, Item], changes: Changes) -> dict[bytes, Item]:
    """The items with the changes made, in name order."""
    now = dict(items)
    new = False
    for name, item in changes.items():
        if item is None:
            now.pop(name, None)
        else:
            new = new or name not in now
            now[name] = item
    return dict(sorted(now.items())) if new else now
