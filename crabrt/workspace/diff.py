"""What differs between two stored states; the cost is that of the difference.

Equal node ids are equal directories, so only what differs is read. Split directories are compared
node by node: their boundaries depend on names alone, so the nodes of two versions line up but where
names came or went.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from crabrt.core.ids import ObjectId, ObjectKind
from crabrt.core.ports import ObjectReader
from crabrt.core.trees import (
    Entry,
    Kind,
    Node,
    NodeRef,
    Root,
    decode_node,
    decode_root,
    read_directory,
)
from crabrt.errors import DamagedObject, NotFound
from crabrt.workspace.changes import Change, compare, join, with_links
from crabrt.workspace.links import read_groups, regrouped


def read_root(reader: ObjectReader, root: ObjectId) -> Root:
    """The root object `root`.

    Raises:
        DamagedObject: it is missing or no root.
    """
    return decode_root(reader.get(root, ObjectKind.ROOT), root)


def read_tree(reader: ObjectReader, root: ObjectId) -> Iterator[tuple[bytes, Entry]]:
    """Path and entry of everything in a state, in path order, from the workspace (empty path) on.

    Raises:
        DamagedObject: a node is missing or malformed.
    """
    top = read_root(reader, root).entry
    yield b"", top
    stack = [(b"", read_directory(ObjectId(top.child), reader.get))]
    while stack:
        path, entries = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            continue
        below = join(path, entry.name)
        yield below, entry
        if entry.kind == Kind.DIR:
            stack.append((below, read_directory(ObjectId(entry.child), reader.get)))


def find_entry(reader: ObjectReader, root: ObjectId, path: bytes) -> Entry:
    """The entry at `path` (relative; empty for the workspace itself).

    Raises:
        NotFound: there is none.
        DamagedObject: a node on the way is missing or malformed.
    """
    entry = read_root(reader, root).entry
    for part in filter(None, path.split(b"/")):
        found = _lookup(reader, entry, part) if entry.kind == Kind.DIR else None
        if found is None:
            raise NotFound("no such path in this state", where=path.decode("utf-8", "replace"))
        entry = found
    return entry


def _lookup(reader: ObjectReader, directory: Entry, name: bytes) -> Entry | None:
    node = _node(reader, ObjectId(directory.child))
    while node.nodes:
        below = None
        for ref in node.nodes:
            if ref.first > name:
                break
            below = ref
        if below is None:
            return None
        inner = _node(reader, below.id)
        if inner.level != node.level - 1:
            raise DamagedObject("a directory's nodes are out of level", where=below.id.hex())
        node = inner
    return next((entry for entry in node.entries if entry.name == name), None)


def diff_roots(
    reader: ObjectReader, before: ObjectId, after: ObjectId, paths: Sequence[bytes] = ()
) -> Iterator[Change]:
    """Every difference between two states, in path order.

    Args:
        reader: where both are stored.
        before: id of one root.
        after: id of the other.
        paths: only these and what is in them; all if empty.

    Raises:
        DamagedObject: a node is missing or malformed.
    """
    if before == after:
        return
    old, new = read_root(reader, before), read_root(reader, after)
    scope = _Scope(paths)
    moved: set[bytes] = set()
    if old.links != new.links:
        moved = regrouped(read_groups(old.links, reader), read_groups(new.links, reader))
    changes = _changes(reader, old.entry, new.entry, scope)
    alone = sorted(
        (Change(path, ("links",), None, None) for path in moved if scope.holds(path)),
        key=lambda change: change.order,
    )
    for path, group in _by_path(heapq.merge(changes, alone, key=lambda change: change.order)):
        found = group[0]
        if len(group) > 1:
            yield with_links(found)
        elif found.how == ("links",):
            try:
                entry = find_entry(reader, after, path)
            except NotFound:
                continue  # in a directory that was removed: told by its own change
            yield Change(path, ("links",), entry, entry)
        else:
            yield found


def _by_path(changes: Iterator[Change]) -> Iterator[tuple[bytes, list[Change]]]:
    group: list[Change] = []
    for change in changes:
        if group and group[0].path != change.path:
            yield group[0].path, group
            group = []
        group.append(change)
    if group:
        yield group[0].path, group


class _Scope:
    """The paths that are asked for."""

    def __init__(self, paths: Sequence[bytes]) -> None:
        self._paths = tuple(path.strip(b"/") for path in paths)
        self._all = not self._paths or b"" in self._paths

    def holds(self, path: bytes) -> bool:
        """Whether `path` is asked for."""
        return self._all or any(path == p or path.startswith(p + b"/") for p in self._paths)

    def leads(self, path: bytes) -> bool:
        """Whether something in the directory `path` may be asked for."""
        return self.holds(path) or not path or any(p.startswith(path + b"/") for p in self._paths)


_Pair = tuple[Entry | None, Entry | None]


def _changes(reader: ObjectReader, old: Entry, new: Entry, scope: _Scope) -> Iterator[Change]:
    stack: list[tuple[bytes, Iterator[_Pair]]] = [(b"", iter([(old, new)]))]
    while stack:
        path, pairs = stack[-1]
        pair = next(pairs, None)
        if pair is None:
            stack.pop()
            continue
        before, after = pair
        some = before or after
        assert some is not None
        here = join(path, some.name) if some.name else b""
        if scope.holds(here):
            change = compare(here, before, after)
            if change is not None:
                yield change
        below = _pairs(reader, _child(before), _child(after))
        if below is not None and scope.leads(here):
            stack.append((here, below))


def _child(entry: Entry | None) -> ObjectId | None:
    return ObjectId(entry.child) if entry is not None and entry.kind == Kind.DIR else None


def _pairs(
    reader: ObjectReader, before: ObjectId | None, after: ObjectId | None
) -> Iterator[_Pair] | None:
    """The names that differ in two directories, entries side by side; None if nothing does."""
    if before == after:
        return None
    if before is None or after is None:
        if after is not None:
            return ((None, entry) for entry in read_directory(after, reader.get))
        assert before is not None
        return ((entry, None) for entry in read_directory(before, reader.get))
    return _aligned(_Cursor(reader, before), _Cursor(reader, after))


def _aligned(old: _Cursor, new: _Cursor) -> Iterator[_Pair]:
    while True:
        left, right = old.peek(), new.peek()
        if left is None and right is None:
            return
        if isinstance(left, NodeRef) and isinstance(right, NodeRef) and left.first == right.first:
            _step_over(old, new, left, right)
        elif isinstance(left, NodeRef) and (right is None or left.first <= _first(right)):
            old.enter()
        elif isinstance(right, NodeRef) and (left is None or right.first <= _first(left)):
            new.enter()
        elif isinstance(left, Entry) and isinstance(right, Entry) and left.name == right.name:
            old.skip()
            new.skip()
            if left != right:
                yield left, right
        elif isinstance(left, Entry) and (right is None or left.name < _first(right)):
            old.skip()
            yield left, None
        else:
            assert isinstance(right, Entry)
            new.skip()
            yield None, right


def _step_over(old: _Cursor, new: _Cursor, left: NodeRef, right: NodeRef) -> None:
    """Two nodes begin with the same name: skip them if equal, else go into the taller one."""
    if left.id == right.id:
        old.skip()
        new.skip()
    elif old.level > new.level:
        old.enter()
    elif new.level > old.level:
        new.enter()
    else:
        old.enter()
        new.enter()


def _first(item: Entry | NodeRef) -> bytes:
    return item.name if isinstance(item, Entry) else item.first


def _node(reader: ObjectReader, node: ObjectId) -> Node:
    return decode_node(reader.get(node, ObjectKind.TREE), node)


class _Cursor:
    """A place in one directory: the next entry, or the next node that is not entered yet."""

    __slots__ = ("_levels", "_reader")

    def __init__(self, reader: ObjectReader, top: ObjectId) -> None:
        self._reader = reader
        self._levels: list[tuple[int, list[Entry | NodeRef]]] = []
        self._load(top, None)

    @property
    def level(self) -> int:
        """Of the node that holds the next item."""
        return self._levels[-1][0]

    def peek(self) -> Entry | NodeRef | None:
        """The next item; None at the end."""
        while self._levels and not self._levels[-1][1]:
            self._levels.pop()
        return self._levels[-1][1][-1] if self._levels else None

    def skip(self) -> None:
        """Go past the next item."""
        self._levels[-1][1].pop()

    def enter(self) -> None:
        """Replace the next item, a node, by what is in it."""
        level, items = self._levels[-1]
        ref = items.pop()
        assert isinstance(ref, NodeRef)
        self._load(ref.id, level - 1)

    def _load(self, node_id: ObjectId, level: int | None) -> None:
        node = _node(self._reader, node_id)
        if level is not None and node.level != level:
            raise DamagedObject("a directory's nodes are out of level", where=node_id.hex())
        items: list[Entry | NodeRef] = [*reversed(node.entries), *reversed(node.nodes)]
        self._levels.append((node.level, items))
