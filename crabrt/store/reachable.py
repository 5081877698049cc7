"""What is reachable from a set of roots: the mark of gc and of usage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from crabrt.core.content import Content, split_node
from crabrt.core.ids import ObjectId, ObjectKind
from crabrt.core.trees import decode_node, decode_root
from crabrt.errors import DamagedObject

if TYPE_CHECKING:
    from crabrt.store.store import Store


class ObjectRef(msgspec.Struct, frozen=True):
    """An object that something outside the store refers to."""

    id: ObjectId
    kind: ObjectKind = ObjectKind.DATA


def content_refs(content: Content) -> Iterator[ObjectRef]:
    """What a content refers to directly."""
    kind = ObjectKind.LIST if content.level else ObjectKind.DATA
    for object_id in content.ids:
        yield ObjectRef(object_id, kind)


def mark(store: Store, roots: Iterable[ObjectRef]) -> set[ObjectId]:
    """The ids of everything that `roots` reach. Each object is read once; DATA is not read.

    Memory: about 100 bytes for each id.

    Raises:
        DamagedObject: a tree, list or root is unreadable, so what lies under it is unknown.
    """
    reached: set[ObjectId] = set()
    for root in roots:
        waiting = [root]
        while waiting:
            ref = waiting.pop()
            if ref.id not in reached:
                reached.add(ref.id)
                if ref.kind is not ObjectKind.DATA:
                    waiting.extend(references_of(store, ref))
    return reached


def references_of(store: Store, ref: ObjectRef) -> Iterator[ObjectRef]:
    """What an object refers to directly.

    Raises:
        DamagedObject: it cannot be read.
    """
    if ref.kind is ObjectKind.DATA:
        return
    data = store.get(ref.id, ref.kind)
    if ref.kind is ObjectKind.ROOT:
        root = decode_root(data, ref.id)
        yield ObjectRef(ObjectId(root.entry.child), ObjectKind.TREE)
        if root.links is not None:
            yield from content_refs(root.links)
    elif ref.kind is ObjectKind.LIST:
        children = split_node(data, ref.id)
        kind = _kind_of(store, children, ref.id)
        for child in children:
            yield ObjectRef(child, kind)
    else:
        node = decode_node(data, ref.id)
        for lower in node.nodes:
            yield ObjectRef(lower.id, ObjectKind.TREE)
        for entry in node.entries:
            if entry.child:
                yield ObjectRef(ObjectId(entry.child), ObjectKind.TREE)
            elif entry.content is not None:
                yield from content_refs(entry.content)


def _kind_of(store: Store, children: list[ObjectId], parent: ObjectId) -> ObjectKind:
    """Whether a list holds pieces or further lists; all its children are of one kind."""
    for refreshed in (False, True):
        if refreshed:
            store.index.refresh()
        for child in children:
            places = store.locate(child)
            if places:
                return ObjectKind(places[0].kind)
    raise DamagedObject("nothing of what this list refers to is there", where=parent.hex())
