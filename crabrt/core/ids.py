"""Names of things: object ids (hashes of content), run ids, turn references.

An object id is BLAKE3-256 of the raw bytes. An agent controls the bytes, so the address must
withstand crafted collisions; that rules out the faster xxh3, which only guards frames. Objects with
a structure (tree nodes, id lists) are hashed in a derive-key context of their own, so that no file
content can ever pass for a directory.
"""

from __future__ import annotations

import os
import re
from enum import IntEnum
from typing import NewType

from blake3 import blake3

ObjectId = NewType("ObjectId", bytes)
"""32 bytes: BLAKE3-256 of an object, keyed by its kind."""

RunId = NewType("RunId", str)
"""``<name>-<8 hex digits>``, e.g. ``fixer-7f3a91c2``."""

ID_BYTES = 32

Buffer = bytes | bytearray | memoryview


class ObjectKind(IntEnum):
    """What an object's bytes are. Stored in its frame; part of what its id is computed from."""

    DATA = 0
    """Raw bytes: a piece of a file, a message, a result."""
    TREE = 1
    """An encoded ``core.trees.Node``: (part of) a directory."""
    LIST = 2
    """An encoded ``core.content`` list node: ids of the pieces of something long."""
    ROOT = 3
    """An encoded ``core.trees.Root``: a whole workspace."""


_CONTEXTS = {
    ObjectKind.TREE: "crabrt 2026-11 v1 tree node",
    ObjectKind.LIST: "crabrt 2026-11 v1 id list",
    ObjectKind.ROOT: "crabrt 2026-11 v1 root",
}


def object_id(data: Buffer, kind: ObjectKind = ObjectKind.DATA) -> ObjectId:
    """The id of `data` as an object of `kind`."""
    if kind is ObjectKind.DATA:
        return ObjectId(blake3(data).digest())
    return ObjectId(blake3(data, derive_key_context=_CONTEXTS[kind]).digest())


NAME_PATTERN = re.compile(r"[A-Za-z0-9._-]+")


def valid_name(text: str) -> bool:
    """Whether `text` may name a run or a label: ``[A-Za-z0-9._-]+``, no integer, not ``last``."""
    return (
        NAME_PATTERN.fullmatch(text) is not None
        and text != "last"
        and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text) is None
    )


def new_run_id(name: str) -> RunId:
    """A fresh id for a run called `name` (random; 32 bits, as one name has few runs)."""
    return RunId(f"{name}-{os.urandom(4).hex()}")


def derived_run_id(name: str, parent: RunId, identity: str) -> RunId:
    """The id of a child run: a function of its parent and of the call that started it.

    Deterministic, so that a resumed parent meets the same child again.
    """
    digest = blake3(f"{parent}\0{identity}".encode()).hexdigest()
    return RunId(f"{name}-{digest[:8]}")
