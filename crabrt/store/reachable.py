"""What is reachable from a set of roots: the mark of gc, of `usage` and of `check`."""

from __future__ import annotations

import msgspec

from crabrt.core.ids import ObjectId, ObjectKind


class ObjectRef(msgspec.Struct, frozen=True):
    """An object that something outside the store refers to."""

    id: ObjectId
    kind: ObjectKind = ObjectKind.DATA
