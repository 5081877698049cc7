"""Long byte strings and long lists as ids of pieces, so that a small change costs little.

A `Content` names the bytes of a file, or a list of messages, by at most `INLINE_IDS` ids. Longer id
lists become objects of their own: they are cut where an id itself says so (its first byte is
below a threshold), so inserting one id moves no other boundary, and the lists of two versions
share all but the nodes on the changed path. The nodes are listed in turn, until few enough remain.
The idea is that of prolly trees (Noms, Dolt); the cut rule is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from crabrt.core.ids import ID_BYTES, ObjectId, ObjectKind
from crabrt.errors import DamagedObject

INLINE_IDS = 64
"""How many ids a `Content` holds itself."""

_NODE_MAX = 256
_CUT_BELOW = 4  # of 256: a node of 64 ids on average


class Content(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where the bytes of something are.

    Attributes:
        size: length in bytes (for a list of messages: their count).
        level: 0: `ids` are the pieces; n: `ids` are list nodes n levels above them.
        ids: at most `INLINE_IDS` ids; none for something empty.
    """

    size: int
    level: int
    ids: tuple[ObjectId, ...]


EMPTY = Content(0, 0, ())

Put = Callable[[bytes, ObjectKind], ObjectId]
Get = Callable[[ObjectId, ObjectKind], bytes]


def build(size: int, ids: Iterable[ObjectId], put: Put) -> Content:
    """The `Content` of `size` bytes whose pieces are `ids`; list nodes go to `put`.

    Memory: a bounded window for each level, so `ids` may be endless for all it cares.
    """
    levels: list[list[ObjectId]] = [[]]

    def add(level: int, item: ObjectId) -> None:
        if level == len(levels):
            levels.append([])
        node = levels[level]
        node.append(item)
        if len(node) > INLINE_IDS and (item[0] < _CUT_BELOW or len(node) >= _NODE_MAX):
            levels[level] = []
            add(level + 1, put(b"".join(node), ObjectKind.LIST))

    node: list[ObjectId] = []
    count = 0
    for item in ids:  # as `add` does, in line: a conversation comes here at every turn
        node.append(item)
        count += 1
        if count > INLINE_IDS and (item[0] < _CUT_BELOW or count >= _NODE_MAX):
            add(1, put(b"".join(node), ObjectKind.LIST))
            node, count = [], 0
    levels[0] = node
    level = 0
    while level < len(levels) - 1 or len(levels[level]) > INLINE_IDS:
        rest = levels[level]
        if rest:
            levels[level] = []
            add(level + 1, put(b"".join(rest), ObjectKind.LIST))
        level += 1
    return Content(size, level, tuple(levels[level]))


def split_node(data: bytes, where: ObjectId) -> list[ObjectId]:
    """The ids in an encoded list node. `where` is its own id, for the error.

    Raises:
        DamagedObject: the node is not a whole number of ids.
    """
    if len(data) % ID_BYTES or not data:
        raise DamagedObject("an id list has a broken length", where=where.hex())
    return [ObjectId(data[i : i + ID_BYTES]) for i in range(0, len(data), ID_BYTES)]


def piece_ids(content: Content, get: Get) -> Iterator[ObjectId]:
    """The ids of the pieces of `content`, in order; list nodes are read through `get`.

    Raises:
        DamagedObject: a list node is missing or malformed.
    """
    stack: list[tuple[int, Iterator[ObjectId]]] = [(content.level, iter(content.ids))]
    while stack:
        level, items = stack[-1]
        item = next(items, None)
        if item is None:
            stack.pop()
        elif level == 0:
            yield item
        else:
            node = split_node(get(item, ObjectKind.LIST), item)
            stack.append((level - 1, iter(node)))
