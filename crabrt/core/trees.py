"""What a workspace is, as values: entries, directory nodes, roots. State, and nothing but state.

State is names, types, bytes, modes, owners, link targets, extended attributes (ACLs are some of
them), hard-link groups, and the modification times of regular files and symlinks. Directory times,
access and change times, inode numbers and hole layout are not: see docs/internals/trees.md.

A directory is one `Node`, or, past a few entries, a tree of them: `listing` makes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

import msgspec

from crabrt.core.content import Content, Get
from crabrt.core.ids import ObjectId, ObjectKind
from crabrt.errors import DamagedObject

_LEVELS_MAX = 32


class Kind(IntEnum):
    """The type of a directory entry. Sockets and devices are not captured and have none."""

    FILE = 1
    DIR = 2
    SYMLINK = 3
    FIFO = 4


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One name in a directory.

    Attributes:
        name: raw bytes, no slash, no NUL; empty for the root.
        kind: a `Kind` value.
        mode: permission bits, ``st_mode & 0o7777`` (0o777 for symlinks).
        uid, gid: numeric owner.
        mtime_ns: modification time of regular files and symlinks, in ns; else 0.
        content: the bytes of a regular file; else None.
        target: what a symlink points at; else empty.
        child: id of the topmost `Node` of a directory; else empty.
        xattrs: (name, value) pairs in name order.
    """

    name: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int = 0
    content: Content | None = None
    target: bytes = b""
    child: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


class NodeRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A lower node and the first name in it."""

    first: bytes
    id: ObjectId


class Node(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """(Part of) a directory. Level 0 holds entries; level n refers to nodes of level n-1."""

    level: int
    entries: tuple[Entry, ...] = ()
    nodes: tuple[NodeRef, ...] = ()


class Root(msgspec.Struct, frozen=True, array_like=True):
    """A whole workspace at one moment.

    Attributes:
        entry: the workspace directory itself (name empty, kind DIR).
        links: the hard-link groups: msgpack of a sorted list of sorted lists of relative paths,
            or None where no two names share an inode.
        files: number of entries in the tree that are not directories.
        size_bytes: sum of the sizes of the regular files.
    """

    entry: Entry
    links: Content | None = None
    files: int = 0
    size_bytes: int = 0


LinkGroups = tuple[tuple[bytes, ...], ...]

_encode = msgspec.msgpack.Encoder().encode
_decode_node = msgspec.msgpack.Decoder(Node).decode
_decode_root = msgspec.msgpack.Decoder(Root).decode
_decode_links = msgspec.msgpack.Decoder(LinkGroups).decode


def decode_node(data: bytes, where: ObjectId) -> Node:
    """Decode and check a node: names are legal and ascending, kinds have what they need.

    Nothing read from a store is trusted: a name with a slash, or ``..``, would write elsewhere.

    Raises:
        DamagedObject: the bytes are not a node, or not one crabrt would write.
    """
    try:
        node = _decode_node(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DamagedObject(f"not a tree node: {error}", where=where.hex()) from error
    previous: bytes | None = None
    for entry in node.entries:
        problem = entry_problem(entry)
        if problem is None and previous is not None and entry.name <= previous:
            problem = "its names are not in order"
        if problem is not None:
            raise DamagedObject(f"a tree node is invalid: {problem}", where=where.hex())
        previous = entry.name
    if (node.level == 0) != (not node.nodes) or (node.nodes and node.entries) or node.level < 0:
        raise DamagedObject("a tree node mixes levels", where=where.hex())
    if any(len(ref.id) != 32 for ref in node.nodes):
        raise DamagedObject("a tree node refers to a malformed id", where=where.hex())
    return node


def entry_problem(entry: Entry) -> str | None:
    """Why `entry` may not be used, or None when it may."""
    name = entry.name
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name or len(name) > 255:
        return f"illegal name {name[:80]!r}"
    return _body_problem(entry)


def _body_problem(entry: Entry) -> str | None:
    kind = entry.kind
    if kind not in Kind.__members__.values():
        return f"unknown kind {kind}"
    if (entry.content is not None) != (kind == Kind.FILE):
        return "only files, and all files, have content"
    if bool(entry.child) != (kind == Kind.DIR) or (entry.child and len(entry.child) != 32):
        return "only directories, and all directories, have a child node"
    if bool(entry.target) != (kind == Kind.SYMLINK) or b"\0" in entry.target:
        return "only symlinks, and all symlinks, have a target"
    if not 0 <= entry.mode <= 0o7777:
        return f"illegal mode {entry.mode:o}"
    content = entry.content
    if content is not None and (content.size < 0 or any(len(i) != 32 for i in content.ids)):
        return "malformed content"
    return None


def encode_root(root: Root) -> bytes:
    """The bytes of `root`, to be stored as an object of kind ROOT."""
    return _encode(root)


def decode_root(data: bytes, where: ObjectId) -> Root:
    """Decode and check a root.

    Raises:
        DamagedObject: the bytes are not a root.
    """
    try:
        root = _decode_root(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DamagedObject(f"not a root: {error}", where=where.hex()) from error
    problem = "it has a name" if root.entry.name else _body_problem(root.entry)
    if problem is None and root.entry.kind != Kind.DIR:
        problem = "it is not a directory"
    if problem is not None:
        raise DamagedObject(f"a root is invalid: {problem}", where=where.hex())
    return root


def encode_links(groups: LinkGroups) -> bytes:
    """The bytes of a table of hard-link groups (both levels sorted by the caller)."""
    return _encode(groups)


def decode_links(data: bytes, where: str) -> LinkGroups:
    """Decode a table of hard-link groups.

    Raises:
        DamagedObject: the bytes are not such a table, or a path in it could lead elsewhere.
    """
    try:
        groups = _decode_links(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DamagedObject(f"not a link table: {error}", where=where) from error
    for group in groups:
        for path in group:
            if any(part in (b"", b".", b"..") for part in path.split(b"/")) or b"\0" in path:
                raise DamagedObject(f"a link table has an illegal path {path[:80]!r}", where=where)
    return groups


def read_directory(top: ObjectId, get: Get) -> Iterator[Entry]:
    """The entries of a directory in name order, its nodes read lazily through `get`.

    Raises:
        DamagedObject: a node is missing, malformed, or out of order.
    """
    stack: list[Iterator[NodeRef]] = []
    node = decode_node(get(top, ObjectKind.TREE), top)
    previous: bytes | None = None
    while True:
        for entry in node.entries:
            if previous is not None and entry.name <= previous:
                raise DamagedObject("a directory's names are not in order", where=top.hex())
            previous = entry.name
            yield entry
        if node.nodes:
            stack.append(iter(node.nodes))
        ref = None
        while stack and ref is None:
            ref = next(stack[-1], None)
            if ref is None:
                stack.pop()
        if ref is None:
            return
        if len(stack) > _LEVELS_MAX:
            raise DamagedObject("a directory is split into too many levels", where=top.hex())
        node = decode_node(get(ref.id, ObjectKind.TREE), ref.id)
